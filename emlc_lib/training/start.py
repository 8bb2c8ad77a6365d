"""Initial weights, shared by every method of a comparison."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.teacher import Classifier, Teacher, build_teacher, with_head
from ..data.batches import Batches
from ..networks.backbones import build_classifier
from ..networks.weights import load_imagenet, start_weights_file
from ..runtime.checkpoint import load_weights
from ..runtime.divergence import check_finite, smaller_rates
from ..runtime.execution import autocast
from ..runtime.loop import epochs
from ..runtime.parallel import average_gradients
from ..runtime.randomness import Stream, torch_generator
from ..runtime.schedules import warmup_cosine
from .config import Config

# Makes a feature extractor that nobody else holds, and says the size of its embeddings.
MakeFeatures = Callable[[], tuple[nn.Module, int]]


def initial_networks(
    config: Config, batches: Batches, *, teacher: bool, show: bool = False, features: MakeFeatures | None = None
) -> tuple[Classifier, Teacher | None]:
    """The student and, if asked for, the teacher, with their initial weights, on the run's device.

    With ``start="random"`` both feature extractors have weights of their own; with ``start="simclr"`` both begin
    with the same self-supervised weights, with ``start="imagenet"`` with torchvision's, as in the paper. If
    ``start_steps`` is not 0, :func:`warm_up` trains the student on the clean set, and the teacher's classifier
    begins as a copy of it. ``features`` makes the feature extractors instead of ``config.model`` and
    ``config.start``, each time a new one.

    Raises:
        FileNotFoundError: the self-supervised weights are yet to be pretrained.
    """
    data, seed = batches.data, config.seed

    def fresh(stream: Stream) -> Classifier:
        if features is not None:
            return with_head(*features(), data.n_classes, torch_generator(seed, stream))
        return starting_classifier(config, data.n_classes, data.clean_images.shape[1], stream)

    student = placed(fresh(Stream.STUDENT_WEIGHTS), config)
    if config.start_steps:
        warm_up(student, config, batches, show=show)
    if not teacher:
        return student, None
    own = fresh(Stream.TEACHER_WEIGHTS)
    if config.start_steps:
        own.load_state_dict(student.state_dict())
    built = build_teacher(own, torch_generator(seed, Stream.TEACHER_WEIGHTS, 1), **config.teacher_options)
    return student, placed(built, config)


def starting_classifier(config: Config, n_classes: int, channels: int, stream: Stream) -> Classifier:
    """A classifier on the CPU with the features that ``config.start`` says, and a new head.

    Raises:
        FileNotFoundError: the self-supervised weights are yet to be pretrained.
    """
    model = build_classifier(config.model, n_classes, channels, torch_generator(config.seed, stream))
    if config.start == "simclr":
        if config.awaits_weights:
            raise FileNotFoundError("start: its SimCLR weights are made by emlc_lib.run or pretrained.provide")
        load_weights(model.features, start_weights_file(config.dataset, config.model, config.start_weights))
    elif config.start == "imagenet":
        load_imagenet(model.features, config.start_weights)
    return model


def empty_teacher(classifier: Classifier, config: Config) -> Teacher:
    """The teacher of a configuration around ``classifier``, on the CPU, whose weights are yet to be loaded."""
    return build_teacher(classifier, torch_generator(0, Stream.TEACHER_WEIGHTS), **config.teacher_options)


def placed(model: nn.Module, config: Config) -> nn.Module:
    """The model on the run's device; channels last, which is twice as fast on a CPU."""
    return model.to(config.device, memory_format=torch.channels_last)


def warm_up(model: Classifier, config: Config, batches: Batches, *, show: bool = False) -> None:
    """Trains a classifier on the clean set alone, in place: ``start_steps`` steps of SGD with momentum 0.9.

    The learning rate rises linearly over the first tenth of the steps to ``start_lr`` and falls to zero as a
    cosine; the batch size is ``batch_size``.
    """
    steps, rise = config.start_steps, max(1, config.start_steps // 10)
    optimiser = torch.optim.SGD(model.parameters(), config.start_lr, momentum=0.9)
    size = min(config.batch_size, len(batches.data.clean_labels))
    model.train()

    def step(t: int) -> dict[str, Tensor]:
        optimiser.param_groups[0]["lr"] = config.start_lr * warmup_cosine(t, steps, rise)
        batch = batches.clean(t, size, start=True)
        optimiser.zero_grad(set_to_none=True)
        with autocast(config.precision, config.device):
            loss = F.cross_entropy(model(batch.x), batch.labels)
        loss.backward()
        average_gradients(model.parameters())
        optimiser.step()
        return {"loss of the warm-up on the clean set": loss.detach()}

    def check(log: list[dict[str, Tensor]], t: int) -> None:
        kept, cure = "This was before the training", smaller_rates({"start_lr": config.start_lr}, config.precision)
        check_finite(log, {"classifier": model}, {"sgd": optimiser}, last_step=t, kept=kept, cure=cure)

    what = "warm-up on the clean set"
    for _ in epochs(step, range(steps), ends=(steps - 1).__eq__, check=check, desc=what, show=show):
        pass
