"""Claims about test accuracy and labels recovered, method against method: Table 1 and what it leaves out."""

import itertools
from collections.abc import Iterator

from .committed import SETTINGS, Tables, at, digits
from .information import IN_EMLCS_TIME
from .statistics import Claim, judged, paired

# What EMLC is compared with at every noise, and where the comparison is in the paper.
OTHERS = {
    "cross_entropy": ("cross-entropy on noisy labels", "Table 1"),
    "clean_only": ("training on the clean labels alone", "here"),
    "fixmatch": ("FixMatch, which ignores all noisy labels, at equal steps", "here"),
    "distilled": ("distillation of the clean labels, at equal steps", "here"),
}


# Tables of runs with EMLC and others at the paper's columns: data, preset and noise.
SCALES = (
    ("small_cifar10", "CIFAR-10", "small", SETTINGS),
    ("small_cifar100", "CIFAR-100", "small", SETTINGS[:4]),
    ("quick_cifar10", "CIFAR-10", "quick", SETTINGS),
    ("quick_cifar10_8_epochs", "CIFAR-10", "quick, 8 epochs", [("symmetric", 0.5), ("symmetric", 0.9)]),
)


def table_1(t: Tables) -> Iterator[Claim]:
    """EMLC against every other method, and how many labels it makes right."""
    name, half = "quick_cifar10", "other_methods_quick_cifar10_50"
    for table, data, preset, settings in SCALES:
        there = set(t(table)["method"])
        for (kind, noise), other in itertools.product(settings, OTHERS):
            if other in there:
                words, where = OTHERS[other]
                difference = paired(t.accuracy(table, "emlc", kind, noise), t.accuracy(table, other, kind, noise))
                scale = at(noise, kind, preset, data)
                yield judged(f"EMLC (k = 1) is above {words}", where, difference, scale, table)
    blind = "without_noisy_labels_quick_cifar10"
    for kind, noise in SETTINGS:
        ours, other = (
            t.accuracy(name, "emlc", kind, noise),
            t.of(blind, "test_accuracy", method="fixmatch", steps=468),
        )
        claim = "EMLC (k = 1) is above FixMatch, which ignores all noisy labels, with 2 epochs against 3"
        yield judged(claim, "here", paired(ours, other), at(noise, kind), blind)
    for table, plain, preset, steps in (
        ("small_cifar10", "small_cifar10_further", "small", 1528),
        (name, blind, "quick", 312),
        ("quick_cifar10_8_epochs", blind, "quick, 8 epochs", 1248),
    ):
        pair = (t.of(n, "test_accuracy", method="clean_only", steps=steps) for n in (table, plain))
        what = "AutoAugment adds to training on the clean labels alone"
        yield judged(what, "here", paired(*pair), f"CIFAR-10, {preset}", plain)
    for table, data, preset, settings in SCALES[:3]:
        yield from _labels(t, table, data, preset, settings)
    for table, noise, others in (
        (name, 0.9, ("mlc", "mslc", "mwnet", "fasten")),
        (half, 0.5, ("mlc", "mslc", "fasten")),
    ):
        ours = t.accuracy(name, "emlc", "symmetric", noise)
        for other in others:
            difference = paired(ours, t.accuracy(table, other, "symmetric", noise))
            where = "here" if (other, noise) == ("mwnet", 0.9) else "Table 1"  # which has no number there
            yield judged(f"EMLC (k = 1) is above {other}", where, difference, at(noise), table)


# Whose labels EMLC's are compared with.
PREDICTORS = {
    "distilled": "a predictor that learned from the clean labels alone",
    "fixmatch": "FixMatch's predictions",
}


def _labels(t: Tables, name: str, data: str, preset: str, settings: list[tuple[str, float]]) -> Iterator[Claim]:
    """How many labels are right after correction."""
    there = set(t(name)["method"])
    for (other, words), (kind, noise) in itertools.product(PREDICTORS.items(), settings):
        if other in there and (other == "distilled" or preset == "small"):
            pair = (
                t.of(name, "last_recovery_all", method=m, **t.setting(m, kind, noise)) for m in ("emlc", other)
            )
            what = f"EMLC (k = 1) makes more labels right than {words}"
            yield judged(what, "here", paired(*pair), at(noise, kind, preset, data), name)
    for (kind, noise), k in itertools.product(settings, (1, 5)):
        made, wrong = (
            t.of(name, column, method="emlc", **t.setting("emlc", kind, noise, k))
            for column in ("last_recovery_all", "wrong_share")
        )
        if len(made):
            what = f"EMLC (k = {k}) makes more labels right than were given right"
            yield judged(what, "here", paired(made, 100 - wrong), at(noise, kind, preset, data), name)


# What the extension is compared with: method and steps. Where a training takes less time, it has more epochs, too.
RIVALS = {
    "EMLC (k = 1), at equal steps": ("emlc", 475),
    "FixMatch, at equal steps": ("fixmatch", 475),
    "FixMatch, in EMLC's time": ("fixmatch", 931),
    "cross-entropy on noisy labels, at equal steps": ("cross_entropy", 475),
    "cross-entropy on noisy labels, in EMLC's time": ("cross_entropy", 1729),
    "DivideMix, at equal steps": ("dividemix", 475),
}
GAINS = {"last_teacher_test_accuracy": "is more accurate", "last_recovery_all": "makes more labels right"}


def extension(t: Tables) -> Iterator[Claim]:
    """What a teacher that learns from images without their labels adds: no claim of the paper."""
    name = "extension_smoke_digits"
    for noise, (words, (method, steps)) in itertools.product((0.5, 0.9), RIVALS.items()):
        ours, other = (
            t.of(name, "test_accuracy", method=m, steps=n, **t.setting(m, "symmetric", noise))
            for m, n in (("emlc_consistent", 475), (method, steps))
        )
        claim = f"EMLC with a consistent teacher is above {words}"
        yield judged(claim, "here: extension", paired(ours, other), digits(noise), name)
    for noise in (0.5, 0.9):
        ours = t.accuracy(name, "emlc", "symmetric", noise)
        other = t.of(name, "test_accuracy", method="fixmatch", steps=931)
        claim = "EMLC (k = 1) is above FixMatch, which ignores all noisy labels, in EMLC's time"
        yield judged(claim, "here", paired(ours, other), digits(noise), name)
    for noise, (column, words) in itertools.product((0.5, 0.9), GAINS.items()):
        pair = (t.of(name, column, method=m, noise=noise) for m in ("emlc_consistent", "emlc"))
        claim = f"a consistent teacher {words} than EMLC's (k = 1), at equal steps"
        yield judged(claim, "here: extension", paired(*pair), digits(noise), name)


# What was tried so that the student follows its better teacher.
REMEDIES = {
    "sure labels ungated": "learning sure labels as the teacher predicts them",
    "student sees strong views": "learning from a second view",
    "both": "learning sure labels as the teacher predicts them, from a second view",
    "student averaged": "averaging the student",
    "no meta term": "leaving out the meta term",
    "no meta term, as long": "leaving out the meta term, with 5 epochs, which take as long as its 3",
}


def remedies(t: Tables) -> Iterator[Claim]:
    """Whether the student of a consistent teacher gains by options of the extension."""
    on_digits, plain, small = "remedies_smoke_digits", "extension_smoke_digits", "small_remedies_cifar10"
    for noise, (remedy, words) in itertools.product((0.5, 0.9), REMEDIES.items()):
        claim = f"the student of a consistent teacher gains by {words}"
        for name, scale, table, row in (
            (on_digits, digits(noise), plain, {"method": "emlc_consistent"}),
            (small, at(noise, preset="small"), small, {"name": "consistent teacher"}),
        ):
            ours = t.of(name, "test_accuracy", name=remedy, noise=noise)
            other = t.of(table, "test_accuracy", noise=noise, **row)
            if len(ours):
                yield judged(claim, "here: extension", paired(ours, other), scale, name)
    for noise in (0.5, 0.9):
        rival = t.of(
            "small_extension_cifar10", "test_accuracy", method="fixmatch", steps=IN_EMLCS_TIME["fixmatch"],
            **t.setting("fixmatch", "symmetric", noise),
        )  # fmt: skip
        ours = t.of(small, "test_accuracy", name="no meta term, as long", noise=noise)
        if len(ours):
            claim = "in equal time EMLC with a consistent teacher and no meta term is above FixMatch"
            yield judged(claim, "here: extension", paired(ours, rival), at(noise, preset="small"), small)


def look_ahead(t: Tables) -> Iterator[Claim]:
    """k = 5 against k = 1."""
    what = "EMLC with k = 5 is above k = 1, at equal noisy images"
    for name, preset in (("small_cifar10", "small"), ("quick_cifar10", "quick")):
        for kind, noise in SETTINGS:
            five, one = (t.accuracy(name, "emlc", kind, noise, k) for k in (5, 1))
            if len(five):
                # The text says that k = 5 is better; Table 1 has it behind at the two high rates of CIFAR-10.
                where = "section 4.1" + (", not Table 1" if noise in (0.8, 0.9) else ", Table 1")
                yield judged(what, where, paired(five, one), at(noise, kind, preset), name)
