"""The problems that tests share: small networks, random batches, and short trainings on digits."""

import pytest
import torch
from torch import nn

from emlc_lib import make_config, prepare
from emlc_lib.core.teacher import Classifier, Teacher, build_teacher, initialise
from emlc_lib.data.batches import CleanBatch, NoisyBatch
from emlc_lib.methods.emlc import EMLC
from emlc_lib.networks.backbones import build_classifier
from emlc_lib.training.trainer import train

LR = 0.3  # of ``small``
FAST = {"dataset": "digits", "preset": "smoke", "epochs": 2}


def build(features: nn.Module, dim: int, n_classes: int, seed: int) -> Classifier:
    """A float64 classifier in training mode with weights from a seed."""
    model = Classifier(features.to("meta"), dim, n_classes)
    return initialise(model, torch.Generator().manual_seed(seed)).double().train()


def mlp(seed: int, *, inputs: int = 6, hidden: int = 8, n_classes: int = 4, smooth: bool = False) -> Classifier:
    activation = nn.Tanh() if smooth else nn.ReLU()
    return build(nn.Sequential(nn.Linear(inputs, hidden), activation), hidden, n_classes, seed)


def conv_net(seed: int, *, n_classes: int = 4) -> Classifier:
    features = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    )  # fmt: skip
    return build(features, 24, n_classes, seed)


NETWORKS = {"mlp": mlp, "smooth": lambda seed: mlp(seed, smooth=True), "conv": conv_net}
SHAPES = {"mlp": (6,), "smooth": (6,), "conv": (2, 6, 6)}


def teacher_around(classifier: Classifier, seed: int) -> Teacher:
    return build_teacher(classifier, torch.Generator().manual_seed(seed), hidden=5).double().train()


class Problem:
    """A student, a teacher, k noisy batches and a clean one, all in float64."""

    def __init__(self, kind: str, k: int, seed: int = 0):
        net = NETWORKS[kind]
        self.student, self.teacher = net(seed), teacher_around(net(seed + 1), seed + 2)
        generator = torch.Generator().manual_seed(seed + 3)

        def batch():
            x = torch.randn(7, *SHAPES[kind], generator=generator, dtype=torch.float64)
            return x, torch.randint(4, (7,), generator=generator)

        self.noisy = [batch() for _ in range(k)]
        self.clean = batch()


class RandomBatches:
    """Stands in for Batches: the batches of step t are drawn from t alone."""

    def __init__(self, dtype=torch.float64, shape=(3, 12, 12), noisy=10, n_classes=10, device="cpu"):
        self.dtype, self.shape, self.size, self.n_classes, self.device = dtype, shape, noisy, n_classes, device

    def last_step(self, epoch, period):
        return 60 * epoch

    def draw(self, seed, n):
        """n images with two labels each."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, *self.shape, generator=generator).to(self.device, self.dtype)
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return x, *torch.randint(self.n_classes, (2, n), generator=generator).to(self.device)

    def noisy(self, t):
        return NoisyBatch(*self.draw(t, self.size))

    def clean(self, t, size, *, start=False):
        return CleanBatch(*self.draw(10_000 + t, size)[:2])


def method(cls=EMLC, dtype=torch.float64, model="small_cnn", batches=None, device="cpu", **changes):
    """A method with new networks for CIFAR's images, on random ones."""
    values = {"lr": 0.05, "batch_size": 10, "clean_batch_size": 6} | changes
    values |= {"teacher_lr": 0.05} if cls.needs_teacher else {}
    config = make_config(
        **{"method": cls.name} | values, dataset="cifar10", preset="smoke", model=model, device=device
    )
    generator = torch.Generator().manual_seed(0)
    student, own = (build_classifier(model, 10, 3, generator).to(device, dtype) for _ in range(2))
    teacher = build_teacher(own, generator, **config.teacher_options).to(device, dtype)
    for network in (student, teacher):
        network.to(memory_format=torch.channels_last).train()
    return cls(config, batches or RandomBatches(dtype, device=device), student, teacher)


def small(cls, kind="mlp", batches=RandomBatches, **changes):
    """A method without a teacher on one of ``NETWORKS``, with plain SGD unless told otherwise."""
    values = {"lr": LR, "batch_size": 7, "clean_batch_size": 6, "momentum": 0.0, "schedule": "none"} | changes
    config = make_config(dataset="digits", device="cpu", method=cls.name, **values)
    return cls(config, batches(shape=SHAPES[kind], noisy=7, n_classes=4), NETWORKS[kind](0), None)


def trained(**changes):
    config = make_config(**FAST, **changes)
    return train(config, prepare(config), show=False)


def bits(result):
    return {name: value for net in result.method.networks.values() for name, value in net.state_dict().items()}


def same_bits(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same_training(a, b):
    """Whether two trainings ended in the same bits and logged the same numbers."""
    networks = same_bits(bits(a), bits(b)) and same_bits(a.best_student, b.best_student)
    return networks and a.epochs.equals(b.epochs) and a.steps.equals(b.steps)


def interrupted(config, data, folder, *, after=1, **options):
    """A training that is stopped after an epoch; its checkpoint is in the folder."""

    def stop(row):
        if row["epoch"] == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, data, folder=folder, show=False, on_epoch=stop, **options)


def killed_and_resumed(config, data, folder):
    """One training undisturbed, and one stopped after its second epoch and resumed."""
    undisturbed = train(config, data, show=False)
    interrupted(config, data, folder, after=2)
    return undisturbed, train(config, data, folder=folder, show=False)
