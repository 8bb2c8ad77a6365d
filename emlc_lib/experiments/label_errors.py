"""Wrong labels as something to be found: scores of suspicion, and how well they rank."""

import itertools

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from ..runtime.parameters import ConfigError
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
