"""Claims at preset ``small`` beyond Table 1: in equal time, on labels of people, and of the extension."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd

from . import starts
from .committed import SETTINGS, Tables, at
from .information import EPOCH, IN_EMLCS_TIME
from .statistics import Claim, by_seed, judged, paired

EPOCHS_4 = IN_EMLCS_TIME["emlc"]
WORDS = {
    "emlc": "EMLC (k = 1)",
    "cross_entropy": "cross-entropy on noisy labels",
    "clean_only": "training on the clean labels alone",
    "fixmatch": "FixMatch, which ignores all noisy labels",
    "dividemix": "DivideMix (no clean label)",
}
BOTH = (0.5, 0.9)


def small_claims(t: Tables) -> Iterator[Claim]:
    """All of them."""
    for group in (_equal_time, _one_epoch, _starts, _further, _people, _extension, _detector):
        yield from group(t)


def _equal_time(t: Tables) -> Iterator[Claim]:
    """EMLC for its four epochs, others for as long; and what longer training on the noisy labels gives."""
    for data, settings in (("CIFAR-10", SETTINGS), ("CIFAR-100", SETTINGS[:4])):
        table = f"small_{data.lower().replace('-', '')}"
        name = table.replace("small", "small_equal_time")
        more = ["small_extension_cifar10"] if data == "CIFAR-10" else []  # of two seeds more
        both = pd.concat([t(table), t(name), *map(t, more)]).drop_duplicates("digest")
        for (kind, noise), other in itertools.product(settings, ("cross_entropy", "clean_only", "fixmatch")):
            common, scale = {"noise_type": kind, "noise": noise}, at(noise, kind, "small", data)
            seen = common if other == "cross_entropy" else {}
            rows = both if seen else t(name)  # further rows of FixMatch have another threshold
            theirs = by_seed(rows, "test_accuracy", method=other, steps=IN_EMLCS_TIME[other], **seen)
            emlc = by_seed(both, "test_accuracy", method="emlc", k=1, **common)
            claim = f"in equal time EMLC (k = 1) is above {WORDS[other]}"
            sources = ", ".join([table, name, *(more if seen and noise in BOTH else [])])
            yield judged(claim, "here", paired(emlc, theirs), scale, sources)
            if seen:
                four = by_seed(both, "test_accuracy", method=other, steps=EPOCHS_4, **seen)
                claim = f"15 epochs of {WORDS[other]} are above 4"
                yield judged(claim, "here", paired(theirs, four), scale, sources)


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
            yield judged(claim, "here", paired(*pair), at(noise, preset="small", data=data), f"{table}, {name}")


def _starts(t: Tables) -> Iterator[Claim]:
    """The same from other starts: SimCLR of fewer epochs, none at all, a narrower network."""
    name = "small_starts_cifar10"
    table = t(name)
    for start, noise, other in itertools.product(dict.fromkeys(table["name"]), (0.9, 0.5), starts.OTHERS):
        found = paired(*(starts.accuracy(table, start, method, noise) for method in ("emlc", other)))
        if found.n and not (start == starts.ALL_EPOCHS and noise == 0.9):  # which is in the table of one epoch
            claim = f"EMLC (k = 1) in an epoch is above 4 of {WORDS[other]}"
            yield judged(claim, "here", found, f"{at(noise, preset='small')}, {start}", name)


def _further(t: Tables) -> Iterator[Claim]:
    """Other methods of correction, and k = 5 with as many updates of the teacher."""
    name = "small_other_methods_cifar10"
    for noise, other in itertools.product(BOTH, ("mlc", "fasten")):
        pair = (t.accuracy(*one, "symmetric", noise) for one in (("small_cifar10", "emlc"), (name, other)))
        yield judged(f"EMLC (k = 1) is above {other}", "Table 1", paired(*pair), at(noise, preset="small"), name)
    for noise, other in itertools.product(BOTH, ("cross_entropy", "fixmatch")):
        pair = (t.accuracy(*one, "symmetric", noise) for one in ((name, "fasten"), ("small_cifar10", other)))
        claim = f"FasTEN is above {WORDS[other]}, at equal steps"
        yield judged(claim, "here", paired(*pair), at(noise, preset="small"), name)
    for noise in BOTH:
        chosen = {"noise_type": "symmetric", "noise": noise, "k": 1}
        pair = (
            t.of(table, "last_recovery_all", method=method, **chosen)
            for table, method in ((name, "fasten"), ("small_cifar10", "emlc"))
        )
        claim = f"FasTEN makes more labels right than {WORDS['emlc']}, at equal steps"
        yield judged(claim, "here", paired(*pair), at(noise, preset="small"), name)
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
    claim = f"in equal time {WORDS['dividemix']} is above {WORDS['cross_entropy']}"
    yield judged(claim, "here", paired(in_time("dividemix"), in_time("cross_entropy")), scale, name)
    pair = (in_time(method, "last_teacher_test_accuracy") for method in ("emlc_consistent", "emlc"))
    claim = "in equal time a consistent teacher is more accurate than EMLC's (k = 1)"
    yield judged(claim, "here: extension", paired(*pair), scale, name)
    labels = {method: in_time(method, "last_recovery_all") for method in (*rivals, "emlc_consistent")}
    for first, other, where in (
        ("emlc_consistent", "emlc", "here: extension"),
        ("emlc_consistent", "fixmatch", "here: extension"),
        ("dividemix", "emlc", "here"),
    ):
        if other in rivals:
            words = "a consistent teacher" if first == "emlc_consistent" else WORDS[first]
            claim = f"in equal time {words} makes more labels right than {WORDS[other]}"
            yield judged(claim, where, paired(labels[first], labels[other]), scale, name)


# Ranks of suspicion, by their rows in the table of benchmarks.label_errors.
RANKS = {
    "EMLC's rank": "EMLC: student and teacher",
    "a consistent teacher's rank": "consistent: student and teacher",
    "cleanlab out of fold": "cleanlab, out of fold: self confidence",
    "cleanlab out of fold by normalized margin": "cleanlab, out of fold: normalized margin",
    "cleanlab from the clean set": "cleanlab, clean set only: self confidence",
}


def _detector(t: Tables) -> Iterator[Claim]:
    """Who finds the wrong ones of people's worst labels."""
    name, scale = "label_errors_small_cifar10n", "CIFAR-10N worse, small"
    ours, extended, *others = RANKS
    pairs = [(extended, ours), *itertools.product((ours, extended), others)]
    measures = {"auc": "AUC x 100", "precision": "precision at the true number, %"}
    for (column, unit), (first, other) in itertools.product(measures.items(), pairs):
        found = paired(*(t.of(name, column, what=RANKS[rank]) for rank in (first, other)))
        where = "here: extension" if first == extended else "here"
        yield judged(f"{first} finds errors better than {other} ({unit})", where, found, scale, name)
