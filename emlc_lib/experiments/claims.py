"""The paper's claims, judged by the committed tables: ``figures/claims.csv`` and what ``14_claims`` shows.

A claim holds or fails where the 95 % interval of a difference paired by seed leaves out 0
(:mod:`emlc_lib.experiments.statistics`), else it is undecided. That is at the scale of the table: ``small``,
``quick`` and ``smoke`` are short trainings of small networks, which cannot refute what the paper says of its own.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from .accuracy_claims import extension, look_ahead, remedies, table_1
from .committed import Tables, at, digits
from .published import published_claims
from .small_claims import small_claims
from .statistics import Claim, judged, paired
from .studies import clean_losses


def claims(folder: Path) -> pd.DataFrame:
    """All claims, one row each: the columns of :class:`Claim`.

    Args:
        folder: of the committed tables.
    """
    tables = Tables(folder)
    groups = (_recovery, table_1, small_claims, extension, remedies, _look_ahead, _parts, _human, _gradient, _cost)
    judged_here = [claim for group in groups for claim in group(tables)]
    table = pd.DataFrame([*judged_here, *published_claims(), *_not_run()])
    return table.astype({"seeds": "Int64"})


def _recovery(t: Tables) -> Iterator[Claim]:
    name, scale = "correctors_quick_cifar10_runs", at(0.9)
    for noise, other in itertools.product((0.5, 0.9), ("MLC", "MSLC")):
        pair = (t.of(name, "last_recovery_all", name=n, noise=noise) for n in ("EMLC, k = 1", other))
        claim = f"EMLC (k = 1) recovers more labels than {other}"
        yield judged(claim, "Figure 1", paired(*pair), at(noise), name)
    maps = "tsne_quick_cifar10_numbers"
    for other, (what, words) in itertools.product(
        ("MLC", "clean labels alone"), (("knn", "10-NN accuracy"), ("silhouette", "silhouette x 100"))
    ):
        pair = (t.of(maps, what, name=n) for n in ("EMLC, k = 1", other))
        claim = f"EMLC's classes separate better than those of {other} ({words})"
        yield judged(claim, "Figure 4" if other == "MLC" else "here", paired(*pair), scale, maps)
    curves = "correctors_quick_cifar10_curves"
    table = t(curves)
    last = clean_losses(table[table["noise"] == 0.9]).set_index(["name", "seed"])["last fifth"]
    for ours, other in (("EMLC, k = 1", "MLC"), ("EMLC, k = 5", "MLC"), ("EMLC, k = 1", "EMLC, k = 5")):
        yield judged(
            f"{ours}: lower clean loss than {other} in the last fifth of the steps", "Figure 5, section 4.3",
            paired(last[ours], last[other]), scale, curves, unit="nats", above=False,
        )  # fmt: skip
    small = "correctors_small_cifar10_curves"
    for noise, part in t(small).groupby("noise"):
        last = clean_losses(part).set_index(["name", "seed"])["last fifth"]
        ours, other = "EMLC, k = 1", "EMLC, k = 5"
        yield judged(
            f"{ours}: lower clean loss than {other} in the last fifth of the steps", "Figure 5, section 4.3",
            paired(last[ours], last[other]), at(noise, preset="small"), small, unit="nats", above=False,
        )  # fmt: skip
    what = "EMLC's teacher (k = 1) confirms fewer wrong labels than MLC's"
    pair = (t.of(name, "last_confirmed_wrong", name=n, noise=0.9) for n in ("EMLC, k = 1", "MLC"))
    yield judged(what, "section 3.6", paired(*pair), scale, name, above=False)
    pair = (t.of("smoke_digits", "last_confirmed_wrong", method=m, noise=0.9) for m in ("emlc", "mlc"))
    yield judged(what, "section 3.6", paired(*pair), digits(0.9), "smoke_digits", above=False)


def _look_ahead(t: Tables) -> Iterator[Claim]:
    yield from look_ahead(t)
    yield from _rows(t, "look_ahead_equal_updates_smoke_digits", digits(0.9), "Figure 6", UPDATES)


# Rows of a study by the claim that the first is above the second.
UPDATES = {
    f"EMLC with k = {k} is above k = 1, at equal updates of the teacher": (f"paper, k = {k}", "paper, k = 1")
    for k in (2, 5)
}
CHOICES = {
    f"{what} adds accuracy": ("the paper's teacher", row)
    for what, row in (
        ("the teacher's own feature extractor", "shares the student's feature extractor"),
        ("the label embedding", "no label embedding"),
        ("a softmax over all classes, the given one, too,", "softmax leaves out the given label"),
    )
}
RELEASED = {
    "six of the released code's options together (k = 5) cost accuracy": (
        "paper, k = 5",
        "k = 5, all of the above",
    ),
    "a teacher without momentum costs accuracy (k = 1)": ("paper, k = 1", "teacher without momentum"),
    "a teacher without momentum costs accuracy (k = 5)": ("paper, k = 5", "k = 5, teacher without momentum"),
    "the other five of them together (k = 5) cost accuracy": ("paper, k = 5", "k = 5, all but that"),
}
PARTS = {
    "the meta term alone adds (no BCE, no AutoAugment)": ("meta term", "no meta term, no BCE, no AutoAugment"),
    "the meta term adds, with random BCE": ("meta term, BCE random, AutoAugment", "BCE random, AutoAugment"),
    "the meta term adds, with adversarial BCE": (
        "meta term, BCE adversarial, AutoAugment", "BCE adversarial, AutoAugment",
    ),
    "random BCE adds to the meta term": ("meta term, BCE random", "meta term"),
    "adversarial BCE adds to the meta term": ("meta term, BCE adversarial", "meta term"),
    "adversarial corruption is above random": ("meta term, BCE adversarial", "meta term, BCE random"),
    "AutoAugment of clean images adds": ("meta term, BCE random, AutoAugment", "meta term, BCE random"),
    "all parts together are above none": (
        "meta term, BCE adversarial, AutoAugment", "no meta term, no BCE, no AutoAugment",
    ),
}  # fmt: skip


def _rows(t: Tables, table: str, scale: str, where: str, pairs: dict, **chosen) -> Iterator[Claim]:
    """Test accuracies of rows of a study against each other, in the rows of the table with these values."""
    for claim, names in pairs.items():
        pair = (t.of(table, "test_accuracy", name=name, **chosen) for name in names)
        yield judged(claim, where, paired(*pair), scale, table)


def _parts(t: Tables) -> Iterator[Claim]:
    name = "ablation_quick_cifar10"
    for noise in (0.5, 0.9):
        yield from _rows(t, name, at(noise), "Table 3", PARTS, noise=noise)
    beside = "the meta term adds, with adversarial BCE"
    for noise in (0.5, 0.9):
        yield from _rows(
            t, "small_ablation_cifar10", at(noise, preset="small"), "Table 3", {beside: PARTS[beside]}, noise=noise
        )
    learned = {claim: rows for claim, rows in PARTS.items() if "AutoAugment of" not in claim}  # digits have none
    yield from _rows(t, "ablation_smoke_digits", digits(0.9), "Table 3", learned)
    for noise in (0.5, 0.9):
        yield from _rows(
            t, "architecture_smoke_digits", digits(noise), "section 3.6, appendix D", CHOICES, noise=noise
        )
    what = "the meta term alone opens the gate more for right labels than for wrong ones (gate x 100)"
    for noise in (0.5, 0.9):
        gates = (t.of(name, f"last_gate_{which}", name="meta term", noise=noise) for which in ("right", "wrong"))
        yield judged(what, "here", paired(*gates), at(noise), name)
    yield from _rows(t, "fidelity_smoke_digits_runs", digits(0.9), "here: released code", RELEASED)


def _human(t: Tables) -> Iterator[Claim]:
    """Labels that people gave."""
    name = "label_errors_quick_cifar10n"
    sets = list(dict.fromkeys(t(name)["labels"]))
    rank = "EMLC: student and teacher"
    for column, what, first, second in (
        ("auc", "EMLC's rank finds errors better than cleanlab out of fold (AUC x 100)", rank,
         "cleanlab, out of fold: self confidence"),
        ("auc", "EMLC's rank finds errors better than cleanlab from the clean set (AUC x 100)", rank,
         "cleanlab, clean set only: self confidence"),
        ("auc", "EMLC's rank finds errors better than its gate does (AUC x 100)", rank, "EMLC: gate"),
        ("test_accuracy", "EMLC's student is above cross-entropy on people's labels", "student: emlc",
         "student: cross_entropy"),
        ("test_accuracy", "EMLC's student, with people's labels, is above the clean labels alone", "student: emlc",
         "student: clean_only"),
    ):  # fmt: skip
        for labels in sets:
            pair = (t.of(name, column, what=row, labels=labels) for row in (first, second))
            yield judged(what, "here", paired(*pair), f"CIFAR-10N {labels.removesuffix('_label')}, quick", name)


def _gradient(t: Tables) -> Iterator[Claim]:
    name = "fidelity_quick_cifar10_gradients"
    table = t(name).groupby(["kind", "seed"])[["cosine", "scale", "relative_error"]].mean()
    paper, aware = table.loc["paper"], table.loc["momentum-aware"]
    scale, seeds = f"{at(0.9)}, k = 5", len(paper)
    for what, value, holds in (
        ("the direction (cosine)", paper["cosine"], bool((paper["cosine"] > 0.99).all())),
        ("the length (over the exact one's)", paper["scale"], bool((paper["scale"] > 0.9).all())),
    ):
        words = f"{value.mean():.3f} ({value.min():.3f} to {value.max():.3f}), n = {seeds}"
        claim = f"Proposition 2's weights (H_ww = I) give {what} of the exact meta-gradient, momentum 0.9"
        yield Claim(claim, "Proposition 2", words, scale, name, "holds" if holds else "fails")
    words = f"{aware['scale'].mean():.3f} ({aware['scale'].min():.3f} to {aware['scale'].max():.3f}), n = {seeds}"
    claim = "momentum-aware weights give the length of the exact meta-gradient"
    yield Claim(claim, "here", words, scale, name, "holds" if (aware["scale"] - 1).abs().max() < 0.1 else "fails")


def _cost(t: Tables) -> Iterator[Claim]:
    name = "step_cost_methods_resnet34_cpu"
    yield from _half_of_mlc(t(name), "ResNet-34, 32 + 8 images, 2 CPU cores", name)
    for execution, rows in t("step_cost_gpu").groupby("execution", sort=False):
        yield from _half_of_mlc(rows, f"ResNet-34, 128 + 32 images, H100, {execution}", "step_cost_gpu")
    growth = t("step_cost_growth_cpu").set_index("variant")["peak_MiB"]
    for how, words in (
        ("EMLC", "as it is"),
        ("EMLC, teacher recomputed", "where the teacher's passes are recomputed"),
    ):
        ratio = growth[f"{how} k=20"] / growth[f"{how} k=1"]
        claim = f"memory grows with k by copies of the student's parameters alone, {words}"
        verdict = "holds" if ratio < 1.25 else "fails"
        told = f"k = 20 takes {ratio:.1f} times the memory of k = 1"
        yield Claim(claim, "Corollary 3.1", told, "narrow ResNet, 64 + 16 images", "step_cost_growth_cpu", verdict)


def _half_of_mlc(rows: pd.DataFrame, scale: str, name: str) -> Iterator[Claim]:
    """By quartiles over rounds, whether EMLC takes at most six tenths of MLC's time."""
    rows = rows.set_index("variant")
    for how, words in (("double backward", "as published"), ("forward mode", "by forward mode")):
        ours, other = rows.loc["EMLC k=1"], rows.loc[f"MLC, {how}"]
        words_of = f"{ours['ratio'] / other['ratio']:.2f} of its time, {int(ours['repeats'])} rounds"
        verdict = "undecided"
        if ours["high"] < 0.6 * other["low"] or ours["low"] > 0.6 * other["high"]:
            verdict = "holds" if ours["high"] < 0.6 * other["low"] else "fails"
        claim = f"a step of EMLC (k = 1) takes about half the time of MLC's {words}"
        where = "here" if how == "forward mode" else "abstract, section 4.3"
        yield Claim(claim, where, words_of, scale, name, verdict)


# What no committed table can judge.
NOT_RUN = {
    "Table 1 at the paper's scale (ResNet-34 and ResNet-50, 15 epochs)": "Table 1",
    "Table 2, Clothing1M": "Table 2",
}


def _not_run() -> Iterator[Claim]:
    for claim, where in NOT_RUN.items():
        yield Claim(claim, where, "", "", "", "not run")


if __name__ == "__main__":  # python -m emlc_lib.experiments.claims: writes the table again
    from ..runtime.places import REPOSITORY

    claims(REPOSITORY / "figures").to_csv(REPOSITORY / "figures" / "claims.csv", index=False)
