"""Shared fixtures. Tests of a float64 claim use small networks built here."""

import pytest
import torch
from torch import nn

from emlc_lib.core.teacher import Classifier, Teacher, build_teacher, initialise
from emlc_lib.data.clothing1m.example import write_tree
from emlc_lib.data.datasets import is_available

# The tests' tensors are small: more threads only wait for each other.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
        if item.get_closest_marker("cifar10") and not is_available("cifar10"):
            item.add_marker(pytest.mark.skip(reason="the CIFAR-10 files are not under the data root"))


def build(features: nn.Module, dim: int, n_classes: int, seed: int) -> Classifier:
    """A float64 classifier in training mode with weights from a seed."""
    model = Classifier(features.to("meta"), dim, n_classes)
    return initialise(model, torch.Generator().manual_seed(seed)).double().train()


def mlp(seed: int, *, inputs: int = 6, hidden: int = 8, n_classes: int = 4, smooth: bool = False) -> Classifier:
    activation = nn.Tanh() if smooth else nn.ReLU()
    return build(nn.Sequential(nn.Linear(inputs, hidden), activation), hidden, n_classes, seed)


def conv_net(seed: int, *, n_classes: int = 4) -> Classifier:
    features = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )
    return build(features, 24, n_classes, seed)


def teacher_around(classifier: Classifier, seed: int) -> Teacher:
    return build_teacher(classifier, torch.Generator().manual_seed(seed), hidden=5).double().train()


class Problem:
    """A student, a teacher, k noisy batches and a clean one, all in float64."""

    def __init__(self, kind: str, k: int, seed: int = 0):
        net = {"mlp": mlp, "conv": conv_net, "smooth": lambda s: mlp(s, smooth=True)}[kind]
        self.student, self.teacher = net(seed), teacher_around(net(seed + 1), seed + 2)
        generator = torch.Generator().manual_seed(seed + 3)
        shape = (7, 2, 6, 6) if kind == "conv" else (7, 6)

        def batch():
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            return x, torch.randint(4, (7,), generator=generator)

        self.noisy = [batch() for _ in range(k)]
        self.clean = batch()


@pytest.fixture
def make_problem():
    return Problem


@pytest.fixture(scope="session")
def clothing1m(tmp_path_factory):
    """A data root with a tree of Clothing1M's layout without faults, and its keys; no test may change it."""
    root = tmp_path_factory.mktemp("data")
    return root, write_tree(root / "clothing1m").keys


@pytest.fixture
def small_images(monkeypatch):
    """Images of Clothing1M have 16 pixels, so that a training takes a second."""
    for module in ("prepare", "folder"):
        monkeypatch.setattr(f"emlc_lib.data.clothing1m.{module}.RESIZE", 20)
        monkeypatch.setattr(f"emlc_lib.data.clothing1m.{module}.CROP", 16)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, where data and runs are looked for, too; and no network may be used."""

    def fail(*_, **__):
        pytest.fail("work has begun: a network was called")

    monkeypatch.setattr(nn.Module, "__call__", fail)
    monkeypatch.setenv("EMLC_DATA", str(tmp_path))
    monkeypatch.delenv("EMLC_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path
