"""Wrong labels as something to be found: scores of suspicion, and how well they rank."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from ..core.teacher import Classifier, Teacher
from ..data.experiment_data import ExperimentData
from ..runtime.checkpoint import read_npz
from ..runtime.files import write_atomically
from ..runtime.parameters import ConfigError
from ..runtime.randomness import Stream, numpy_generator
from ..training.config import Config
from ..training.correction import soft_labels
from ..training.evaluation import predict
from ..training.trainer import train
from .statistics import by_seed, paired

# What 10_your_data looks at in the table of benchmarks.label_errors.
LABEL_ERROR_COLUMNS = (
    "dataset", "labels", "preset", "seed", "n_noisy", "n_clean", "wrong_share", "what", "auc", "precision",
    "test_accuracy", "folds", "hardware", "torch", "cleanlab", "command",
)  # fmt: skip
LABEL_ERROR_ROWS = {
    "what": [
        "EMLC: student and teacher", "EMLC: gate", "cleanlab, out of fold: self confidence",
        "cleanlab, clean set only: self confidence", "student: emlc", "student: cross_entropy",
        "student: clean_only",
    ],
    "labels": ["aggre_label", "random_label1", "random_label2", "random_label3", "worse_label"],
}  # fmt: skip


def ranking_quality(suspicion: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """How well a score finds the wrong labels.

    Args:
        suspicion: (n,) larger where the label is more likely to be wrong; only the order counts.
        wrong: (n,) bool, which labels are.

    Returns:
        ``auc``: the probability that a wrong label is more suspicious than a right one, ties counting one half;
        ``precision``: the share of wrong labels among as many of the most suspicious ones as are wrong in truth
        (ties in the order of the images), which is the recall there, too. A random order has 0.5 and the share
        of wrong labels.

    Raises:
        ConfigError: all labels are right, or all are wrong; or a score is not finite.
    """
    suspicion, wrong = np.asarray(suspicion, np.float64), np.asarray(wrong, bool)
    if not 0 < wrong.sum() < len(wrong):
        raise ConfigError("wrong: there must be wrong labels and right ones")
    if not np.isfinite(suspicion).all():
        raise ConfigError("suspicion: must be finite")
    most = np.argsort(-suspicion, kind="stable")[: wrong.sum()]
    return {"auc": float(roc_auc_score(wrong, suspicion)), "precision": float(wrong[most].mean())}


def flagged_quality(flagged: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """How well a set of labels, (n,) bool, that is taken for wrong agrees with those that are.

    Returns ``flagged``, its share of all labels, ``flagged_precision`` (NaN for an empty set) and
    ``flagged_recall``.
    """
    flagged, wrong = np.asarray(flagged, bool), np.asarray(wrong, bool)
    precision = float(wrong[flagged].mean()) if flagged.any() else float("nan")
    return {
        "flagged": float(flagged.mean()),
        "flagged_precision": precision,
        "flagged_recall": float(flagged[wrong].mean()),
    }


def correction_quality(
    given: np.ndarray, corrected: np.ndarray, true: np.ndarray, suspicion: np.ndarray
) -> dict[str, float]:
    """How corrected labels, and a score of suspicion of the given ones, agree with the true labels; all (n,).

    Returns:
        ``right before`` and ``right after``, shares of all labels; ``repaired``, the share of the wrong ones whose
        corrected label is the true one; ``spoilt``, the share of the right ones that were changed; ``AUC`` of the
        suspicion (:func:`ranking_quality`). NaN where no label is wrong, or none right, and so there is nothing
        to find.
    """
    given, corrected, true = (np.asarray(labels) for labels in (given, corrected, true))
    wrong, right_now = given != true, corrected == true
    return {
        "right before": float((~wrong).mean()),
        "right after": float(right_now.mean()),
        "repaired": float(right_now[wrong].mean()) if wrong.any() else float("nan"),
        "spoilt": float((~right_now)[~wrong].mean()) if not wrong.all() else float("nan"),
        "AUC": ranking_quality(suspicion, wrong)["auc"] if 0 < wrong.sum() < len(wrong) else float("nan"),
    }


def some_right_and_wrong(wrong: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of n samples with a right label and then n with a wrong one, or of as many as there are.

    Args:
        wrong: (n,) bool, which labels are.
    """
    groups = np.flatnonzero(~wrong), np.flatnonzero(wrong)
    return np.concatenate([rng.choice(group, min(n, len(group)), replace=False) for group in groups])


def by_gate(gate: np.ndarray, **columns: np.ndarray) -> pd.DataFrame:
    """Samples in each band of the gate, their mean gate, and the means of further columns, all (n,)."""
    edges = [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1]
    names = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    bands = pd.cut(np.asarray(gate), edges, labels=names, include_lowest=True)
    grouped = pd.DataFrame({"gate": gate, **columns}).groupby(bands, observed=True)
    return pd.concat([grouped.size().rename("samples"), grouped.mean()], axis=1)


def gaps(table: pd.DataFrame, column: str, what: str, other: str) -> pd.Series:
    """A column of ``what`` minus that of ``other``, in points, paired by seed: a Difference by set of labels.

    Args:
        table: that of ``benchmarks.label_errors``.
    """
    groups = table.groupby("labels", sort=False)
    found = {key: paired(*(by_seed(part, column, what=name) for name in (what, other))) for key, part in groups}
    return pd.Series(found, dtype=object)


def class_probabilities(model: Classifier, data: ExperimentData) -> np.ndarray:
    """A classifier's probabilities (n, C) float64 for the noisy images, without augmentation."""
    return predict(model.eval(), data.noisy_images, data).double().softmax(1).cpu().numpy()


def suspicions(student: Classifier, teacher: Teacher, data: ExperimentData) -> dict[str, np.ndarray]:
    """What trained networks say against the given labels of the noisy set; each (n,), larger for more suspicious.

    Returns:
        One minus the probability of the given label by ``student``; by ``teacher``, its own, without the gate;
        by ``both``, the mean of the two, by which :class:`emlc_lib.EMLCClassifier` ranks; and after the correction
        of eq. 6, ``corrected``. ``gate`` is one minus the gate. ``changed`` is 1 where the corrected class is not
        the given one, else 0.
    """
    soft, gate, own = soft_labels(teacher.eval(), data.noisy_images, data.noisy_labels, data)
    given = data.noisy_labels.cpu()
    by_student = class_probabilities(student, data)[np.arange(len(given)), given]
    by_teacher, corrected = (p.gather(1, given[:, None])[:, 0].numpy() for p in (own, soft))
    return {
        "student": 1 - by_student,
        "teacher": 1 - by_teacher,
        "both": 1 - (by_student + by_teacher) / 2,
        "corrected": 1 - corrected,
        "gate": 1 - gate.numpy(),
        "changed": (soft.argmax(1) != given).double().numpy(),
    }


def out_of_fold(config: Config, data: ExperimentData, *, folds: int, file: Path | None = None) -> np.ndarray:
    """Probabilities (n, C) float64 of each noisy image, from a training that did not see it.

    The noisy set is cut into ``folds`` parts with the same shares of the given labels; the configured method is
    trained on all but one of them, from the same start each time, and predicts that one.

    Args:
        config: of the trainings; their epochs are passes over all parts but one.
        data: from :func:`emlc_lib.data.prepare.prepare` with the same configuration.
        folds: 2 or more.
        file: an ``.npz`` file to which finished folds are written, and from which a begun series goes on.

    Raises:
        ConfigError: a damaged file, or one of another configuration; fewer than two folds.
    """
    if folds < 2:
        raise ConfigError(f"folds: must be at least 2 (got {folds})")
    parts = _folds(config.seed, data.noisy_labels, folds)
    done: dict[str, np.ndarray] = {}
    if file and file.is_file():
        done = read_npz(file, "file")
        if str(done.pop("config", "")) != config.digest:
            raise ConfigError(f"file: {file.name} is of another configuration; use another one")
    for i, held_out in enumerate(parts):
        if f"fold{i}" in done:
            continue
        trained = train(config, _without(data, held_out), show=False)
        unseen = dataclasses.replace(data, noisy_images=data.noisy_images[torch.from_numpy(held_out)])
        done[f"fold{i}"] = class_probabilities(trained.method.reported, unseen)
        if file:
            write_atomically(file, lambda path: _save(path, done, config.digest))
    probabilities = np.empty((len(data.noisy_labels), data.n_classes))
    for i, held_out in enumerate(parts):
        probabilities[held_out] = done[f"fold{i}"]
    return probabilities


def _save(path: Path, folds: dict[str, np.ndarray], digest: str) -> None:
    with open(path, "wb") as out:
        np.savez_compressed(out, config=digest, **folds)


def _folds(seed: int, labels: Tensor, folds: int) -> list[np.ndarray]:
    state = int(numpy_generator(seed, Stream.FOLDS).integers(2**31))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=state)
    return [part for _, part in splitter.split(np.zeros(len(labels)), labels.cpu().numpy())]


def _without(data: ExperimentData, held_out: np.ndarray) -> ExperimentData:
    """The data without some of the noisy images, and without a test set, so that nothing is measured on it."""
    keep = torch.ones(len(data.noisy_labels), dtype=torch.bool)
    keep[torch.from_numpy(held_out)] = False
    index = keep.nonzero()[:, 0].to(data.noisy_labels.device)
    return dataclasses.replace(
        data,
        noisy_images=data.noisy_images[index],
        noisy_labels=data.noisy_labels[index],
        true_labels=data.true_labels[index],
        test_images=data.test_images[:0],
        test_labels=data.test_labels[:0],
    )
