"""Published test accuracies, in percent: the paper's own, others', and what they say of the paper's claims."""

from collections.abc import Iterator

import pandas as pd

from .statistics import Claim

# Table 1, test accuracy in percent: (mean, standard deviation over 5 seeds or None).
TABLE_1_COLUMNS = [
    ("cifar10", "symmetric", 0.2), ("cifar10", "symmetric", 0.5), ("cifar10", "symmetric", 0.8),
    ("cifar10", "symmetric", 0.9), ("cifar10", "asymmetric", 0.4), ("cifar100", "symmetric", 0.2),
    ("cifar100", "symmetric", 0.5), ("cifar100", "symmetric", 0.8), ("cifar100", "symmetric", 0.9),
]  # fmt: skip

TABLE_1: dict[str, list[float | tuple[float, float] | None]] = {
    "cross_entropy": [86.8, 79.4, 62.9, 42.7, 83.2, 62.0, 46.7, 19.9, 10.1],
    "mwnet": [89.76, None, 56.56, None, 88.69, 66.73, None, 19.04, None],
    "mlnt": [92.9, 88.8, 76.1, 58.3, 88.6, 67.7, 58.0, 40.1, 14.3],
    "mlc": [92.6, 88.1, 77.4, 67.9, None, 66.5, 52.4, 18.9, 14.2],
    "mslc": [93.4, 89.9, 69.8, 56.1, 91.6, 72.5, 65.4, 24.3, 16.7],
    "fasten": [91.94, 90.07, 86.78, 79.52, 90.43, 68.75, 63.82, 55.22, None],
    "emlc k=1": [
        (91.8, 0.51), (91.16, 0.25), (90.95, 0.24), (90.71, 0.07), (91.81, 0.05),
        (72.48, 0.44), (67.08, 0.35), (60.37, 0.31), (54.04, 0.57),
    ],
    "emlc k=5": [
        (93.53, 0.21), (92.63, 0.05), (89.89, 0.07), (89.57, 0.30), (91.82, 0.19),
        (73.05, 0.20), (68.61, 0.34), (60.51, 0.19), (52.49, 0.18),
    ],
}  # fmt: skip

# Table 2, Clothing1M: the paper's name, this project's or "", whether it uses clean labels, test accuracy, %.
_TABLE_2: list[tuple[str, str, bool, float]] = [
    ("Cross-entropy", "cross_entropy", False, 69.21), ("Joint-Optim", "", False, 72.16),
    ("P-correction", "", False, 73.49), ("C2D", "", False, 74.30), ("DivideMix", "", False, 74.76),
    ("ELR+", "", False, 74.81), ("AugDesc", "", False, 75.11), ("SANM", "", False, 75.63),
    ("Meta Cleaner", "", True, 72.50), ("Meta-Learning", "mlnt", True, 73.47), ("MW-Net", "mwnet", True, 73.72),
    ("FaMUS", "", True, 74.40), ("MLC", "mlc", True, 75.78), ("MSLG", "", True, 76.02),
    ("Self Learning", "", True, 76.44), ("FasTEN", "fasten", True, 77.83),
    ("EMLC (k = 1)", "emlc k=1", True, 79.35), ("EMLC (k = 5)", "emlc k=5", True, 78.16),
]  # fmt: skip

# C2D with DivideMix, without any clean label (Zheltonozhskii et al., WACV 2022, Table 2: PreAct ResNet-18, on
# CIFAR-100 ResNet-50), in the order of Table 1's columns.
C2D = [96.23, 95.15, 94.30, 93.42, 90.75, 80.89, 79.20, 71.53, 63.91]


def table_2() -> pd.DataFrame:
    """The paper's Table 2, test accuracy in percent on Clothing1M; ``name`` is that of a method here, or empty."""
    return pd.DataFrame(_TABLE_2, columns=["method", "name", "clean labels", "test accuracy"])


def in_paper(method: str, k: int, column: tuple[str, str, float]) -> tuple[float, float | None] | None:
    row = f"emlc k={k}" if method == "emlc" else method
    if column[0] == "clothing1m":
        return next(((value, None) for _, name, _, value in _TABLE_2 if name == row), None)
    if row not in TABLE_1 or column not in TABLE_1_COLUMNS:
        return None
    value = TABLE_1[row][TABLE_1_COLUMNS.index(column)]
    return value if isinstance(value, tuple) or value is None else (value, None)


def published_claims() -> Iterator[Claim]:
    """What the paper says of Table 1, by its own numbers and by C2D's; above means a higher mean, of whatever
    spread."""
    names = [f"{data} {kind} {rate:g}" for data, kind, rate in TABLE_1_COLUMNS]
    table = pd.DataFrame(TABLE_1, index=names).T
    means = table.map(lambda value: value[0] if isinstance(value, tuple) else value).astype(float)
    ours = means.loc[["emlc k=1", "emlc k=5"]]
    prior = means.drop(index=ours.index).max()
    for k in (1, 5):
        claim = f"EMLC with k = {k} is above all prior methods of Table 1, by its means"
        yield _in_all_columns(claim, "section 4", ours.loc[f"emlc k={k}"] > prior, "Table 1")
    multi = ours.loc["emlc k=5"] > ours.loc["emlc k=1"]
    yield _in_all_columns("multi-step (k = 5) worked best on CIFAR, by the means", "section 4.1", multi, "Table 1")
    claim = "EMLC (the better k) is state of the art: above C2D, which has no clean label, on other networks"
    above = ours.max() > pd.Series(C2D, index=names)
    yield _in_all_columns(claim, "abstract, section 4", above, "Table 1 and C2D's Table 2")


def _in_all_columns(claim: str, where: str, holds: pd.Series, source: str) -> Claim:
    behind = [str(name) for name in holds.index[~holds]]
    words = f"in {len(holds) - len(behind)} of {len(holds)} columns"
    words += f" (not in {', '.join(behind)})" if behind else ""
    return Claim(claim, where, words, "published", source, "fails" if behind else "holds")
