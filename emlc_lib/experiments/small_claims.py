"""Claims at preset ``small`` beyond Table 1: in equal time, on labels of people, and of the extension."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd

from .committed import SETTINGS, Tables, at
from .information import EPOCH, IN_EMLCS_TIME
from .statistics import Claim, by_seed, judged, paired

EPOCHS_4 = IN_EMLCS_TIME["emlc"]
WORDS = {
    "emlc": "EMLC (k = 1)",
    "cross_entropy": "cross-entropy on noisy labels",
    "clean_only": "training on the clean labels alone",
    "fixmatch": "FixMatch, which ignores all noisy labels",
    "dividemix": "DivideMix, which has no clean label",
}
BOTH = (0.5, 0.9)


def small_claims(t: Tables) -> Iterator[Claim]:
    """All of them."""
    for group in (_equal_time, _one_epoch, _further, _people, _extension):
        yield from group(t)


def _equal_time(t: Tables) -> Iterator[Claim]:
    """EMLC for its four epochs, others for as long."""
    for data, settings in (("CIFAR-10", SETTINGS), ("CIFAR-100", SETTINGS[:4])):
        table = f"small_{data.lower().replace('-', '')}"
        name = table.replace("small", "small_equal_time")
        for (kind, noise), other in itertools.product(settings, ("cross_entropy", "clean_only", "fixmatch")):
            theirs = t.of(
                name, "test_accuracy", method=other, steps=IN_EMLCS_TIME[other], **t.setting(other, kind, noise)
            )
            difference = paired(t.accuracy(table, "emlc", kind, noise), theirs)
            claim = f"in equal time EMLC (k = 1) is above {WORDS[other]}"
            yield judged(claim, "here", difference, at(noise, kind, "small", data), name)


def _one_epoch(t: Tables) -> Iterator[Claim]:
    """Whether EMLC is above what it is compared with if it has less time, and not as many steps: an epoch of it
    takes less than four of cross-entropy or FixMatch."""
    for data in ("CIFAR-100", "CIFAR-10"):
        table = f"small_{data.lower().replace('-', '')}"
        name = table.replace("small", "small_short")
        others = ("cross_entropy", "clean_only", "fixmatch")
        for noise, other in itertools.product(sorted(set(t(name)["noise"])), others):
            pair = (t.accuracy(*one, "symmetric", noise) for one in ((name, "emlc"), (table, other)))
            claim = f"EMLC (k = 1) with 1 epoch is above {WORDS[other]}, with 4"
            yield judged(claim, "here", paired(*pair), at(noise, preset="small", data=data), name)


def _further(t: Tables) -> Iterator[Claim]:
    """Other methods of correction, and k = 5 with as many updates of the teacher."""
    name = "small_other_methods_cifar10"
    for noise, other in itertools.product(BOTH, ("mlc", "fasten")):
        pair = (t.accuracy(*one, "symmetric", noise) for one in (("small_cifar10", "emlc"), (name, other)))
        yield judged(f"EMLC (k = 1) is above {other}", "Table 1", paired(*pair), at(noise, preset="small"), name)
    name = "small_equal_updates_cifar10"
    for noise in BOTH:
        pair = (
            t.of(name, "test_accuracy", k=k, steps=steps, noise=noise) for k, steps in ((5, 5 * EPOCH), (1, EPOCH))
        )
        claim = "EMLC with k = 5 is above k = 1, at equal updates of the teacher"
        yield judged(claim, "Figure 6", paired(*pair), at(noise, preset="small"), name)


def _people(t: Tables) -> Iterator[Claim]:
    """CIFAR-10N."""
    name = "small_cifar10_further"
    table = t(name)
    for key in ("worse", "aggre"):
        rows = table[table["command"].str.contains(f"human_key {key}_label")]

        def of(column: str, method: str, steps: int, rows=rows) -> pd.Series:
            return by_seed(rows, column, method=method, steps=steps)

        scale, emlc = f"CIFAR-10N {key}, small", partial(of, method="emlc", steps=EPOCHS_4)
        for claim, steps in (("{}", EPOCHS_4), ("in equal time {}", IN_EMLCS_TIME["cross_entropy"])):
            claim = claim.format(f"EMLC (k = 1) is above {WORDS['cross_entropy']}")
            pair = emlc("test_accuracy"), of("test_accuracy", "cross_entropy", steps)
            yield judged(claim, "here", paired(*pair), scale, name)
        claim = "EMLC (k = 1) makes more labels right than were given right"
        pair = emlc("last_recovery_all"), 100 - emlc("wrong_share")
        yield judged(claim, "here", paired(*pair), scale, name)
        yield from _both_kinds(of, ("emlc", "cross_entropy", "dividemix"), scale, name)


def _extension(t: Tables) -> Iterator[Claim]:
    """The extension and DivideMix on symmetric noise."""
    name = "small_extension_cifar10"
    for noise in BOTH:

        def of(column: str, method: str, steps: int, noise=noise) -> pd.Series:
            return t.of(name, column, method=method, steps=steps, **t.setting(method, "symmetric", noise))

        rivals = ("emlc", "fixmatch", "cross_entropy", "dividemix")
        yield from _both_kinds(of, rivals, at(noise, preset="small"), name)


def _both_kinds(
    of: Callable[[str, str, int], pd.Series], rivals: tuple[str, ...], scale: str, name: str
) -> Iterator[Claim]:
    """A consistent teacher against others, and DivideMix against EMLC; ``of``: a column by method and steps."""

    def in_time(method: str, column: str = "test_accuracy") -> pd.Series:
        return of(column, method, IN_EMLCS_TIME[method])

    what, ours = "EMLC with a consistent teacher is above", in_time("emlc_consistent")
    for other in rivals:
        claim = f"in equal time {what} {WORDS[other]}"
        yield judged(claim, "here: extension", paired(ours, in_time(other)), scale, name)
    claim = f"{what} {WORDS['cross_entropy']}, with 4 epochs"
    found = paired(ours, of("test_accuracy", "cross_entropy", EPOCHS_4))
    yield judged(claim, "here: extension", found, scale, name)
    claim = f"in equal time EMLC (k = 1) is above {WORDS['dividemix']}"
    yield judged(claim, "here", paired(in_time("emlc"), in_time("dividemix")), scale, name)
    for column, words in (
        ("last_teacher_test_accuracy", "is more accurate"),
        ("last_recovery_all", "makes more labels right"),
    ):
        pair = (in_time(method, column) for method in ("emlc_consistent", "emlc"))
        claim = f"in equal time a consistent teacher {words} than EMLC's (k = 1)"
        yield judged(claim, "here: extension", paired(*pair), scale, name)
