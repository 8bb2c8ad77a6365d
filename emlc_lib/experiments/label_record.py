"""What EMLC makes of single images during a training: prediction, gate, corrected label, wanted label."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..core.meta_gradient import InnerStep, log_prob_jvp, parameters_of
from ..core.teacher import Teacher, build_teacher
from ..data.augment import normalise
from ..data.batches import Batches
from ..data.experiment_data import ExperimentData
from ..methods.emlc import EMLC
from ..networks.backbones import build_classifier
from ..networks.weights import SHIPPED_WEIGHTS
from ..runtime.checkpoint import load_weights, read_npz
from ..runtime.execution import at_own_precision
from ..runtime.files import as_path
from ..runtime.parameters import ConfigError
from ..runtime.places import REPOSITORY
from ..runtime.progress import progress
from ..training.config import Config
from ..training.correction import soft_labels
from ..training.start import initial_networks

MOMENTS = 8  # at which a training is looked at, after its beginning


@dataclass(frozen=True)
class LabelRecord:
    """n images of C classes at S moments of a training.

    Attributes:
        images: (n, h, w) or (n, h, w, 3) uint8.
        given, true: (n,) int64 labels. classes: (C,) names.
        steps: (S,) student steps that had been made; the first is 0.
        probabilities: (S, n, C), the teacher's own prediction y^.
        gates: (S, n), the weight of the given label.
        wanted: (S, n, C), v_i = J_w(log p_w(x_i)) g_w, g_w being the clean gradient at the same parameters: eq. 10
            for a step of vanishing rate. ``(eta / n) v_ic`` is the clean loss's slope by entry c of label i.
        origin: how it was made, one line.
    """

    images: np.ndarray
    given: np.ndarray
    true: np.ndarray
    classes: np.ndarray
    steps: np.ndarray
    probabilities: np.ndarray
    gates: np.ndarray
    wanted: np.ndarray
    origin: str

    def soft_labels(self, moment: int) -> np.ndarray:
        """(n, C), the corrected labels (Figure 3) at a moment, counted from 0."""
        w = self.gates[moment][:, None].astype(float)
        return w * np.eye(len(self.classes))[self.given] + (1 - w) * self.probabilities[moment]

    def gains(self, moment: int) -> np.ndarray:
        """(n, C), by how much the clean loss would fall, in units of eta / n and to first order, if the corrected
        label moved wholly to each class: ``<q_i, v_i> - v_ic``. The class that is wanted has the largest."""
        v = self.wanted[moment]
        return (self.soft_labels(moment) * v).sum(axis=1, keepdims=True) - v

    def fates(self) -> pd.DataFrame:
        """How many labels have each :meth:`fate`: a row for each that occurs, a column for each step."""
        counts = {step: pd.Series(self.fate(i)).value_counts() for i, step in enumerate(self.steps.tolist())}
        return pd.DataFrame(counts).fillna(0).astype(int)

    def fate(self, moment: int) -> np.ndarray:
        """(n,) words: what became of each label. It is ``kept`` or ``spoilt`` where the given one is right, else
        ``recovered``, ``confirmed``, or ``changed`` to a third class."""
        corrected = self.soft_labels(moment).argmax(1)
        right = self.given == self.true
        words = np.where(corrected == self.given, "confirmed", "changed")
        words = np.where(corrected == self.true, "recovered", words)
        return np.where(right, np.where(corrected == self.true, "kept", "spoilt"), words)

    @classmethod
    def load(cls, path: str | Path) -> LabelRecord:
        """Reads what ``benchmarks.label_record`` has written: a file, or the committed one in ``figures/``.

        Raises:
            ConfigError: there is neither, or it holds something else.
        """
        places = (as_path(path, "record"), REPOSITORY / "figures" / path)
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise ConfigError(f"record: {path} is neither a file nor one in the repository's figures/")
        arrays = read_npz(found, "record")
        if missing := {"shape", *(field.name for field in fields(cls))} - arrays.keys():
            raise ConfigError(f"record: {found} is no recorded training; it has no {', '.join(sorted(missing))}")
        shape = tuple(arrays.pop("shape"))
        strip = Image.open(io.BytesIO(arrays["images"].tobytes()))
        arrays["images"] = np.asarray(strip.convert("L" if len(shape) == 3 else "RGB")).reshape(shape)
        return cls(**arrays | {"origin": str(arrays["origin"])})


def shipped_teacher() -> Teacher:
    """The teacher of the run in the card ``weights/emlc-cifar10-resnet_small.json``, on the CPU, in evaluation
    mode."""
    model, generator = "resnet_small", torch.Generator().manual_seed(0)
    teacher = build_teacher(build_classifier(model, 10, 3, generator), generator)
    load_weights(teacher, SHIPPED_WEIGHTS / f"emlc-cifar10-{model}.safetensors")
    return teacher.eval()


@at_own_precision
def record_labels(config: Config, data: ExperimentData, *, n: int = 200, show: bool = True) -> LabelRecord:
    """Trains EMLC and looks at the first n images of the noisy set before it and eight times, evenly spread.

    What the teacher says is without augmentation and in evaluation mode, as at the end of a training. The wanted
    labels are those of these images as one batch and one clean batch, in training mode, before the step.

    Raises:
        ConfigError: another method than emlc, or images that stay on disk.
    """
    if config.method != "emlc":
        raise ConfigError(f"method: labels are recorded of emlc, not of {config.method}")
    if not isinstance(data.noisy_images, torch.Tensor):
        raise ConfigError(f"dataset: labels are recorded where images are in memory, not of {config.dataset}")
    batches = Batches(config, data)
    student, teacher = initial_networks(config, batches, teacher=True, show=show)
    method = EMLC(config, batches, student, teacher)
    total = method.last_step(config.epochs)
    pixels, given = data.noisy_images[:n], data.noisy_labels[:n]
    x = normalise(pixels, data.mean, data.std)
    ends = {round(total * i / MOMENTS / method.period) * method.period for i in range(1, MOMENTS + 1)} - {0}
    rows: list[tuple[np.ndarray, ...]] = []

    def look(t: int) -> None:
        method.train(False)
        corrected, gate, probabilities = soft_labels(teacher, pixels, given, data)
        method.train(True)
        g_w, _ = method.clean_gradient(batches.clean(t // config.k, config.clean_batch_size))
        step = InnerStep(parameters_of(student), x, corrected.to(x))
        rows.append(tuple(v.cpu().numpy() for v in (probabilities, gate, log_prob_jvp(student, step, g_w))))

    look(0)
    for t in progress(range(total), total=total, desc="labels", show=show):
        method.step(t)
        if t + 1 in ends:
            look(t + 1)
    probabilities, gates, wanted = (np.stack(values).astype(np.float32) for values in zip(*rows, strict=True))
    images = pixels.cpu().numpy()
    return LabelRecord(
        images=images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1),
        given=given.cpu().numpy(),
        true=data.true_labels[:n].cpu().numpy(),
        classes=np.asarray(data.classes),
        steps=np.asarray([0, *sorted(ends)]),
        probabilities=probabilities,
        gates=gates,
        wanted=wanted,
        origin=config.name,
    )
