"""The comparisons of notebooks 05 to 09: named changes to a configuration, run and put into tables."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..runtime.parameters import ConfigError
from ..training.config import Config
from ..training.presets import make_config
from .runs import Run
from .statistics import paired
from .sweep import listed, sweep
from .tables import RUN_COLUMNS, run_table

# Columns of study_table and curve_table.
STUDY_COLUMNS = ("name", "meta_weights", *RUN_COLUMNS)
CURVE_COLUMNS = (
    "name", "seed", "digest", "noise", "step", "epoch", "recovery_all", "recovery_wrong", "confirmed_wrong",
    "meta_loss",
)  # fmt: skip

Study = Mapping[str, Mapping[str, Any]]

# Figures 1 and 5.
CORRECTORS: Study = {
    "EMLC, k = 1": {"method": "emlc", "k": 1},
    "EMLC, k = 5": {"method": "emlc", "k": 5},
    "MLC": {"method": "mlc"},
    "MSLC": {"method": "mslc"},
}

# Table 3, row by row, and three that change one factor alone: the meta term or, where the preset has random
# corruption, how half of the clean labels are corrupted.
ABLATION: Study = {
    "no meta term, no BCE, no AutoAugment": {"meta_term": False, "corruption": "none", "autoaugment": False},
    "meta term": {"corruption": "none", "autoaugment": False},
    "meta term, BCE random": {"corruption": "random", "autoaugment": False},
    "meta term, BCE adversarial": {"corruption": "adversarial", "autoaugment": False},
    "meta term, BCE adversarial, AutoAugment": {"corruption": "adversarial"},
    "meta term, BCE random, AutoAugment": {"corruption": "random"},
    "BCE random, AutoAugment": {"meta_term": False, "corruption": "random"},
    "BCE adversarial, AutoAugment": {"meta_term": False, "corruption": "adversarial"},
}

# What section 3.6 and appendix D chose, each the other way.
ARCHITECTURE: Study = {
    "the paper's teacher": {},
    "shares the student's feature extractor": {"teacher_features": "student"},
    "no label embedding": {"label_embedding": False},
    "softmax leaves out the given label": {"leave_out_given": True},
}

# Where the released code differs: each alone against the paper's way, and all of it.
_RELEASED_STEPS = {"step_order": "reversed", "step_mean": True}

_RELEASED = {**_RELEASED_STEPS, "splits": "released", "corruption": "none", "weight_decay": 5e-4}

_ASYMMETRIC = {"noise_type": "asymmetric", "noise": 0.4}

FIDELITY: Study = {
    "paper, k = 1": {},
    "clean labels in the noisy set, further ones to choose the epoch": {"splits": "released"},
    "no BCE": {"corruption": "none"},
    "weight decay 5e-4": {"weight_decay": 5e-4},
    "teacher without momentum": {"teacher_momentum": 0.0},
    "paper, k = 5": {"k": 5},
    "k = 5, steps reversed": {"k": 5, "step_order": "reversed"},
    "k = 5, divided by k": {"k": 5, "step_mean": True},
    "k = 5, reversed and divided": {"k": 5, **_RELEASED_STEPS},
    "k = 5, teacher without momentum": {"k": 5, "teacher_momentum": 0.0},
    "k = 5, all but that": {"k": 5, **_RELEASED},
    "k = 5, all of the above": {"k": 5, **_RELEASED, "teacher_momentum": 0.0},
    "asymmetric 40 %, similar classes": _ASYMMETRIC,
    "asymmetric 40 %, random flips": {**_ASYMMETRIC, "asymmetric_map": "random"},
}  # fmt: skip

# What each of them is compared with.
FIDELITY_BASELINES: Mapping[str, str] = {
    name: "paper, k = 5" if "k = 5" in name
    else "asymmetric 40 %, similar classes" if name.startswith("asymmetric")
    else "paper, k = 1"
    for name in FIDELITY
}  # fmt: skip


def look_ahead(ks: Iterable[int], weights: Iterable[str], *, equal: str = "batches", epochs: int = 1) -> Study:
    """Figure 6: EMLC over k by the weights of the multi-step gradient; at k = 1 they are all the same.

    Args:
        ks: look-ahead steps. weights: values of ``meta_weights``.
        equal: what runs of different k have in common: noisy ``batches``, so that a large k has fewer
            updates of the teacher, or teacher ``updates``, with k times as many epochs.
        epochs: of k = 1, used for ``updates`` only.

    Raises:
        ConfigError: another ``equal``, ks that are no positive integers, or what is no list.
    """
    if equal not in ("batches", "updates"):
        raise ConfigError(f"equal: {equal!r} is not one of batches, updates")
    ks, weights = listed(ks=ks, weights=weights)
    if not all(isinstance(k, int) and k >= 1 for k in ks):
        raise ConfigError(f"ks: must be positive integers (got {ks!r})")
    return {
        f"{kind}, k = {k}": {"k": k, "meta_weights": kind} | ({"epochs": k * epochs} if equal == "updates" else {})
        for k in ks
        for kind in (weights if k > 1 else ["paper"])
    }


def run_study(
    study: Study,
    seeds: Iterable[int],
    *,
    root: str | Path | None = None,
    jobs: int | None = None,
    show: bool = True,
    **common: Any,
) -> list[tuple[str, Run]]:
    """Every run of a study with its name; finished ones are read back (:func:`emlc_lib.experiments.sweep.sweep`).

    Args:
        study: changes by name; they override ``common``.
        common: parameters of :func:`emlc_lib.training.presets.make_config`.

    Raises:
        ConfigError: any value that is not allowed; before anything runs.
    """
    (seeds,) = listed(seeds=seeds)
    named: list[tuple[str, Config]] = [
        (name, make_config(**(common | dict(changes) | {"seed": seed})))
        for seed in seeds
        for name, changes in study.items()
    ]
    # Two names can mean one configuration, if a change is the preset's own value.
    unique = {config.name: config for _, config in named}
    finished = {run.config.name: run for run in sweep(list(unique.values()), root=root, jobs=jobs, show=show)}
    return [(name, finished[config.name]) for name, config in named]


def study_table(named: Sequence[tuple[str, Run]]) -> pd.DataFrame:
    """:func:`emlc_lib.experiments.tables.run_table` with the columns ``name`` and ``meta_weights`` in front."""
    table = run_table([run for _, run in named])
    table.insert(0, "name", [name for name, _ in named])
    table.insert(1, "meta_weights", [getattr(run.config, "meta_weights", "paper") for _, run in named])
    return table


def summarise_study(table: pd.DataFrame, baseline: str | Mapping[str, str] | None = None) -> pd.DataFrame:
    """Means over seeds by name, in percent, and differences to a baseline paired by seed, in points.

    Args:
        table: :func:`study_table`.
        baseline: one name for all or, by name, each one's own; None leaves the differences out. ``±`` is half of
            their 95 % interval, ``pairs`` the number of seeds that both have, ``verdict`` clear, undecided or,
            of what it is compared with, baseline.
    """
    accuracy = 100 * table.set_index(["name", "seed"])["test_accuracy"].unstack("seed", sort=False)
    grouped = table.groupby("name", sort=False)
    result = pd.DataFrame(
        {
            "n": grouped.size(),
            "mean": accuracy.mean(axis=1),
            "std": accuracy.std(axis=1),
            "teacher": 100 * grouped["last_teacher_test_accuracy"].mean(),
            "recovery": 100 * grouped["last_recovery_all"].mean(),
        }
    )
    if baseline is not None:
        own = [baseline if isinstance(baseline, str) else baseline[name] for name in accuracy.index]
        found = [
            paired(accuracy.loc[name], accuracy.loc[other])
            for name, other in zip(accuracy.index, own, strict=True)
        ]
        result["difference"], result["±"] = [d.mean for d in found], [d.half for d in found]
        result["pairs"] = [d.n for d in found]
        verdicts = zip(accuracy.index, own, found, strict=True)
        result["verdict"] = ["baseline" if name == other else d.verdict for name, other, d in verdicts]
    return result.loc[list(dict.fromkeys(table["name"]))].round(2)


def curve_table(named: Sequence[tuple[str, Run]], points: int = 60) -> pd.DataFrame:
    """What was logged at every step, in means over windows, tidy: one row per run and window.

    Args:
        points: windows per run. They are as wide as the largest k at least, so that each has a teacher update.

    Returns:
        Columns ``name``, ``seed``, ``digest``, ``noise``, ``step`` (the window's last, from 1), ``epoch``
        (fractional), the recoveries and ``confirmed_wrong`` (in [0, 1]) and ``meta_loss``, NaN where a method has
        none.
    """
    tables = []
    for name, run in named:
        steps = run.steps
        width = max(len(steps) // points, getattr(run.config, "k", 1))
        columns = steps.reindex(columns=["recovery_all", "recovery_wrong", "confirmed_wrong", "meta_loss"])
        means = columns.groupby(steps.index // width).mean()
        last = ((means.index + 1) * width).to_numpy().clip(max=len(steps))
        means.insert(0, "name", name)
        means.insert(1, "seed", run.config.seed)
        means.insert(2, "digest", run.digest)
        means.insert(3, "noise", run.config.noise)
        means.insert(4, "step", last)
        means.insert(5, "epoch", (last / len(steps) * run.config.epochs).round(4))
        tables.append(means.round(5))
    return pd.concat(tables, ignore_index=True)


def clean_losses(curves: pd.DataFrame) -> pd.DataFrame:
    """The student's mean loss on clean batches, in nats, by run: in its first window and two fifths of its steps.

    Args:
        curves: :func:`curve_table`; what has no ``meta_loss`` is left out.

    Returns:
        Columns ``name``, ``seed``, ``first window``, ``first fifth``, ``last fifth``.
    """
    by = ["name", "seed"]
    known = curves.assign(end=curves.groupby(by)["step"].transform("max")).dropna(subset="meta_loss")
    first, end = known.groupby(by)["step"].transform("min"), known["end"]
    parts = {
        "first window": known["step"] == first,
        "first fifth": known["step"] <= 0.2 * end,
        "last fifth": known["step"] > 0.8 * end,
    }
    means = {name: known[part].groupby(by, sort=False)["meta_loss"].mean() for name, part in parts.items()}
    return pd.DataFrame(means).reset_index()
