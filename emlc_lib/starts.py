"""Initial weights, shared by every method of a comparison."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from .batches import Batches
from .config import Config
from .models import Classifier, Teacher, build_classifier, build_teacher
from .progress import progress
from .randomness import Stream, torch_generator


def initial_networks(
    config: Config, batches: Batches, *, teacher: bool, show: bool = False
) -> tuple[Classifier, Teacher | None]:
    """The student and, if asked for, the teacher, with their initial weights, on the run's device.

    With ``start="random"`` both classifiers have weights of their own. With ``start="clean"`` both begin as
    copies of one classifier that :func:`warm_up` trained on the clean set, as in the paper both begin with one
    self-supervised network.
    """
    data, seed = batches.data, config.seed

    def fresh(stream: Stream) -> Classifier:
        generator = torch_generator(seed, stream)
        channels = data.clean_images.shape[1]
        return build_classifier(config.model, data.n_classes, channels, generator)

    student = placed(fresh(Stream.STUDENT_WEIGHTS), config)
    if config.start == "clean":
        warm_up(student, config, batches, show=show)
    if not teacher:
        return student, None
    own = fresh(Stream.TEACHER_WEIGHTS)
    if config.start == "clean":
        own.load_state_dict(student.state_dict())
    built = build_teacher(own, torch_generator(seed, Stream.TEACHER_WEIGHTS, 1))
    return student, placed(built, config)


def placed(model: nn.Module, config: Config) -> nn.Module:
    """The model on the run's device, channels last: the layout that convolutions want, twice as fast on a CPU."""
    return model.to(config.device, memory_format=torch.channels_last)


def warm_up(model: Classifier, config: Config, batches: Batches, *, show: bool = False) -> None:
    """Trains a classifier on the clean set alone, in place: ``start_steps`` steps of SGD with momentum 0.9.

    The learning rate rises linearly over the first tenth of the steps to ``start_lr`` and falls to zero as a
    cosine; the batch size is ``batch_size``.
    """
    steps, rise = config.start_steps, max(1, config.start_steps // 10)
    optimiser = torch.optim.SGD(model.parameters(), config.start_lr, momentum=0.9)
    size = min(config.batch_size, config.n_clean)
    model.train()
    for t in progress(range(steps), total=steps, desc="warm-up on the clean set", show=show):
        factor = (t + 1) / rise if t < rise else 0.5 * (1 + math.cos(math.pi * (t - rise) / (steps - rise)))
        optimiser.param_groups[0]["lr"] = config.start_lr * factor
        batch = batches.clean(t, size, start=True)
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(model(batch.x), batch.labels).backward()
        optimiser.step()
