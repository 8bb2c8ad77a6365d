"""What prose says of a claim is what the table of claims says; equal commands have equal numbers everywhere."""

import json
import re
import shlex
from collections import defaultdict
from typing import NamedTuple

import nbformat
import pandas as pd
import pytest
import yaml

from emlc_lib import make_config
from emlc_lib.runtime.places import REPOSITORY

CLAIMS = pd.read_csv(REPOSITORY / "figures" / "claims.csv")
QUICK, DIGITS = "CIFAR-10, quick, {} % symmetric", "digits, smoke, 90 % symmetric"
DIGITS_50, CONSISTENT = "digits, smoke, 50 % symmetric", "EMLC with a consistent teacher is above "
LONGER = "CIFAR-10, quick, 8 epochs, {} % symmetric"
ABOVE = "EMLC (k = 1) is above "
ONE_EPOCH = "EMLC (k = 1) with 1 epoch is above "
IN_TIME, CONSISTENT_IN_TIME = "in equal time " + ABOVE, "in equal time " + CONSISTENT
NO_META_TERM = "in equal time EMLC with a consistent teacher and no meta term is above FixMatch"
PREDICTOR = "EMLC (k = 1) makes more labels right than a predictor"
GIVEN = "makes more labels right than were given right"


class Said(NamedTuple):
    """Of a page (README or a notebook's number): words, and the verdict of the claims that they stand for."""

    page: str
    words: str
    claim: str
    scales: tuple[str, ...]
    verdict: str


def said(page, words, verdict, claim, *scales):
    return Said(page, words, claim, scales, verdict)


def quick(*rates):
    return [QUICK.format(rate) for rate in rates]


def small(*rates, data="CIFAR-10"):
    return [f"{data}, small, {rate} % {'asymmetric' if rate == 40 else 'symmetric'}" for rate in rates]


def from_starts(*names):
    return [f"CIFAR-10, small, 90 % symmetric, {name}" for name in names]


def hundred(*rates):
    return small(*rates, data="CIFAR-100")


ALL = [*small(20, 50, 80, 90, 40), *hundred(20, 50, 80, 90)]

RIGHT = "EMLC (k = 1) makes more labels right than "
UPDATES = "EMLC with k = 5 is above k = 1, at equal updates"
FASTEN_LABELS = "FasTEN makes more labels right than EMLC"
DIVIDEMIX_LABELS = "in equal time DivideMix (no clean label) makes more labels right than EMLC"
DIVIDEMIX_IN_TIME = "in equal time DivideMix (no clean label) is above cross-entropy"
IN_AN_EPOCH = "EMLC (k = 1) in an epoch is above 4 of "
STARTS = ("random start", "SimCLR, 5 epochs", "SimCLR, 25 epochs", "resnet_narrow")
AT_50 = [
    f"CIFAR-10, small, 50 % symmetric, {name}"
    for name in ("random start", "SimCLR, 25 epochs", "SimCLR, 200 epochs")
]
WITH_4 = CONSISTENT + "cross-entropy on noisy labels, with 4 epochs"
WORSE, AGGRE = "CIFAR-10N worse, small", "CIFAR-10N aggre, small"
ALL_RATES = (20, 50, 80, 90)

SENTENCES = [
    said("README", "undecided at 50 %)", "undecided", RIGHT + "were given", *hundred(50)),
    said(
        "README",
        "below four epochs of that up to 50 % on both data",
        "fails",
        ABOVE + "cross-entropy",
        *small(20, 50),
        *hundred(20, 50),
    ),
    said("README", "EMLC is clearly below FixMatch", "fails", ABOVE + "FixMatch", *small(80, 90)),
    *(
        said("README", "clearly above the table's others in equal time", "holds", above + other, *hundred(90))
        for above in (ABOVE, IN_TIME)
        for other in ("cross-entropy", "training on the clean", "FixMatch")
    ),
    said("README", "with one it is clearly below the clean labels", "fails", ONE_EPOCH + "training", *hundred(90)),
    said("README", "15 are clearly worse than 4 at 50 % of CIFAR-10", "fails", "15 epochs of cross", *small(50)),
    said("README", "is clearly above EMLC (EMLC -3.80 ± 0.59", "fails", ABOVE + "fasten", *small(50, 90)),
    said(
        "README",
        "against cross-entropy at 50 %, FixMatch",
        "undecided",
        "FasTEN is above cross-entropy",
        *small(50),
    ),
    said("README", "at 50 %, FixMatch at 90 %.", "undecided", "FasTEN is above FixMatch", *small(90)),
    *(
        said(page, words, "holds", IN_AN_EPOCH + "cross-entropy", *from_starts(*STARTS))
        for page, words in (
            ("README", "clearly above cross-entropy from any,"),
            ("15", "above four from every start"),
        )
    ),
    *(
        said(page, words, "fails", IN_AN_EPOCH + "training on the clean", *from_starts(*STARTS))
        for page, words in (
            ("README", "clearly below its own clean labels from random weights"),
            ("15", "EMLC is clearly below them from random weights, from 5 and from 25 epochs"),
        )
    ),
    said("15", "below four of cross-entropy from each", "fails", IN_AN_EPOCH + "cross-entropy", *AT_50),
    said("15", "only from all 200 (undecided from 25)", "holds", IN_AN_EPOCH + "training", AT_50[-1]),
    said("15", "only from all 200 (undecided from 25)", "undecided", IN_AN_EPOCH + "training", AT_50[1]),
    said("15", "only if SimCLR had all of its 200 epochs", "fails", IN_AN_EPOCH + "training", AT_50[0]),
    *(
        said(page, words, "holds", "EMLC (k = 1) with 1 epoch is above training", *small(90))
        for page, words in (
            ("README", "above from all 200"),
            ("15", "clearly above them only from all 200"),
        )
    ),
    *(
        said("README", words, verdict, claim, *small(rate))
        for claim in (DIVIDEMIX_LABELS, FASTEN_LABELS)
        for words, verdict, rate in (
            ("make clearly more right than EMLC", "holds", 50),
            ("than EMLC, at 90 % fewer.", "fails", 90),
        )
    ),
    said("15", "At 50 % it makes clearly more labels right, too", "holds", FASTEN_LABELS, *small(50)),
    said("15", "at 90 % clearly fewer (73", "fails", FASTEN_LABELS, *small(90)),
    said("15", "at 90 % undecided against FasTEN, below", "undecided", "FasTEN is above FixMatch", *small(90)),
    said("15", "undecided against cross-entropy's.", "undecided", DIVIDEMIX_IN_TIME, *small(90)),
    said("15", "FasTEN is clearly above EMLC at both rates", "fails", ABOVE + "fasten", *small(50, 90)),
    said("15", "it is undecided against cross-entropy at 50 %", "undecided", "FasTEN is above cross", *small(50)),
    said("15", "clearly above FixMatch there,", "holds", "FasTEN is above FixMatch", *small(50)),
    said("15", "undecided against that at 90 %", "undecided", "FasTEN is above FixMatch", *small(90)),
    said("15", "$k=5$ is clearly above $k=1$ at 50 %", "holds", UPDATES, *small(50)),
    said("15", "at 90 % that is undecided", "undecided", UPDATES, *small(90)),
    said("15", "clearly cost at 50 and 80 % of CIFAR-10", "fails", "15 epochs of cross", *small(50, 80)),
    said("15", "clearly help up to 80 % of CIFAR-100", "holds", "15 epochs of cross", *hundred(20, 50, 80)),
    said(
        "15",
        "More epochs than four clearly cost at 50 and 80 %, und",
        "undecided",
        "15 epochs of",
        *small(20, 90, 40),
    ),
    said(
        "15",
        "it makes clearly more labels right than EMLC at 50 %",
        "holds",
        DIVIDEMIX_LABELS,
        *small(50),
        AGGRE,
    ),
    said("15", "fewer at 90 %.", "fails", DIVIDEMIX_LABELS, *small(90)),
    said(
        "08", "cross-entropy is also clearly above EMLC at 80 %", "fails", IN_TIME + "cross-entropy", *hundred(80)
    ),
    said("08", "and FixMatch at 50 % of CIFAR-10", "fails", IN_TIME + "FixMatch", *small(50)),
    said("README", "better on CIFAR-100 up to 80 %", "holds", "15 epochs of cross", *hundred(20, 50, 80)),
    said("README", "(at 80 %: -3.82 ± 2.53)", "fails", IN_TIME + "cross-entropy", *hundred(80)),
    said("README", "below 15 on CIFAR-100 up to 80 %", "fails", IN_TIME + "cross-entropy", *hundred(20, 50, 80)),
    said("README", "EMLC is clearly below FixMatch in equal time", "fails", IN_TIME + "FixMatch", *small(80, 90)),
    said("README", "lifts EMLC clearly at 50 and 90 %", "holds", CONSISTENT_IN_TIME + "EMLC", *small(50, 90)),
    said("README", "FixMatch is clearly above it at 90 %", "fails", CONSISTENT_IN_TIME + "FixMatch", *small(90)),
    said("README", "four epochs of cross-entropy at 50 %", "fails", WITH_4, *small(50)),
    said("README", "are clearly above its student", "fails", ABOVE + "cross-entropy", WORSE),
    said("README", "fifteen are undecided", "undecided", IN_TIME + "cross-entropy", WORSE),
    said("README", "clearly above it at 50 % alone", "holds", UPDATES, *small(50)),
    said("README", "clearly above it at 50 % alone", "undecided", UPDATES, *small(90)),
    said("07", "it is clearly above at 50 %, by a point", "holds", UPDATES, *small(50)),
    said("07", "steps of the student; at 90 % undecided", "undecided", UPDATES, *small(90)),
    said("14", "clearly above it at 50 % at equal updates", "holds", UPDATES, *small(50)),
    said(
        "14", "clearly above it at 50, 80 and 90 % of CIFAR-10 and", "fails", IN_TIME + "Fix", *small(50, 80, 90)
    ),
    said(
        "14",
        "clearly above it at 20 and (with five seeds) 50 % of CIFAR-10 and",
        "fails",
        IN_TIME + "cross-entropy",
        *small(20, 50),
    ),
    said("14", "at 20, 50 and 80 % of CIFAR-100, clearly", "fails", IN_TIME + "cross", *hundred(20, 50, 80)),
    said("14", "90 % of the one and 90 % of the other", "holds", IN_TIME + "cross", *small(80, 90), *hundred(90)),
    said("14", "clearly below everywhere on CIFAR-100", "holds", IN_TIME + "FixMatch", *hundred(20, 50, 80, 90)),
    said(
        "14", "lifts EMLC's student clearly at 50 and 90 %", "holds", CONSISTENT_IN_TIME + "EMLC", *small(50, 90)
    ),
    said("15", "clearly above EMLC at 20 and 50 %, undecided at", "fails", IN_TIME + "cross", *small(20, 50)),
    said("15", "undecided at asymmetric 40 %, and clearly", "undecided", IN_TIME + "cross", *small(40)),
    said("15", "clearly below at 80 and 90 %. More", "holds", IN_TIME + "cross-entropy", *small(80, 90)),
    said("15", "it is clearly above EMLC up to 50 % and at", "fails", ABOVE + "cross-entropy", *small(20, 50, 40)),
    said("15", "above EMLC at 50, 80 and 90 %, undecided", "fails", IN_TIME + "FixMatch", *small(50, 80, 90)),
    said("15", "undecided at 20 and asymmetric 40 %.", "undecided", IN_TIME + "FixMatch", *small(20, 40)),
    said("15", "clearly above EMLC at 20, 50 and 80 %", "fails", IN_TIME + "cross-entropy", *hundred(20, 50, 80)),
    said("15", "clearly below at 90 %, where EMLC", "holds", IN_TIME + "cross-entropy", *hundred(90)),
    *(
        said(
            "15",
            "above FixMatch and the clean labels alone, too, as at",
            "holds",
            IN_TIME + other,
            *hundred(*ALL_RATES),
        )
        for other in ("FixMatch", "training on")
    ),
    said("15", "at 80 % it is clearly below cross-entropy, FixMatch and", "fails", ONE_EPOCH, *hundred(80)),
    *(
        said("15", "at 90 % clearly below FixMatch and the clean", "fails", ONE_EPOCH + other, *hundred(90))
        for other in ("FixMatch", "training")
    ),
    said("15", "against cross-entropy. Its gate", "undecided", ONE_EPOCH + "cross-entropy", *hundred(90)),
    *(
        said(
            "15",
            "clearly above cross-entropy and the clean labels alone, und",
            "holds",
            ONE_EPOCH + other,
            *small(90),
        )
        for other in ("cross-entropy", "training")
    ),
    said("15", "undecided against FixMatch's four epochs", "undecided", ONE_EPOCH + "FixMatch", *small(90)),
    said("15", "makes 18 points more labels right", "holds", RIGHT + "were given", WORSE),
    said("15", "clearly below four epochs of cross-entropy on the", "fails", ABOVE + "cross-entropy", WORSE),
    said("15", "(undecided against fifteen)", "undecided", IN_TIME + "cross-entropy", WORSE),
    said("15", "it makes 11 points more of them wrong", "fails", RIGHT + "were given", AGGRE),
    *(
        said("15", "clearly below cross-entropy whatever its time", "fails", above + "cross-entropy", AGGRE)
        for above in (ABOVE, IN_TIME)
    ),
    said("15", "clearly above EMLC's on the worst", "holds", CONSISTENT_IN_TIME + "EMLC", WORSE),
    said("15", "(undecided on the aggregated)", "undecided", CONSISTENT_IN_TIME + "EMLC", AGGRE),
    said("15", "still clearly below four epochs of cross-entropy on both", "fails", WITH_4, WORSE, AGGRE),
    *(
        said(
            "15",
            "clearly more accurate than EMLC's, by 2.8 and 2.9",
            "holds",
            f"in equal time a {words}",
            *small(50, 90),
        )
        for words in ("consistent teacher is more", "consistent teacher makes more labels right than EMLC")
    ),
    said(
        "15", "its student is clearly above EMLC's at both", "holds", CONSISTENT_IN_TIME + "EMLC", *small(50, 90)
    ),
    said("15", "it is undecided against FixMatch", "undecided", CONSISTENT_IN_TIME + "FixMatch", *small(50)),
    said("15", "at 90 % clearly below; against", "fails", CONSISTENT_IN_TIME + "FixMatch", *small(90)),
    said("15", "people's worst labels are undecided", "undecided", CONSISTENT_IN_TIME + "cross", WORSE),
    said("15", "four epochs are clearly above it there and at 50 %", "fails", WITH_4, WORSE, *small(50)),
    said("15", "is clearly below EMLC at 50 and 90 %", "holds", IN_TIME + "DivideMix", WORSE, *small(50, 90)),
    said("15", "clearly above it on the aggregated ones", "fails", IN_TIME + "DivideMix", AGGRE),
    said(
        "15",
        "and all are undecided. Learning sure",
        "undecided",
        "the student of a consistent teacher gains",
        DIGITS,
        DIGITS_50,
    ),
    said(
        "README",
        "EMLC makes clearly more right than were given at 50, 80 and 90 %",
        "holds",
        RIGHT + "were given",
        *small(50, 80, 90),
    ),
    said("README", "(CIFAR-100: at 80 and 90 %", "holds", RIGHT + "were given", *hundred(80, 90)),
    said(
        "README",
        "clearly fewer at 20 and asymmetric 40 %",
        "fails",
        RIGHT + "were given",
        *small(20, 40),
        *hundred(20),
    ),
    said(
        "README",
        "FixMatch's predictions are right clearly more often from 50 % on",
        "fails",
        RIGHT + "FixMatch",
        *small(50, 80, 90),
    ),
    said("README", "on CIFAR-100 at 90 % alone", "fails", RIGHT + "FixMatch", *hundred(90)),
    said("README", "on CIFAR-100 at 90 % alone", "holds", RIGHT + "FixMatch", *hundred(20, 50, 80)),
    said(
        "README",
        "EMLC is clearly above its clean labels alone in all nine columns",
        "holds",
        ABOVE + "training on the clean",
        *ALL,
    ),
    said(
        "README",
        "k = 5 is undecided against k = 1 at 50 and 90 %",
        "undecided",
        "EMLC with k = 5 is above k = 1, at equal noisy",
        *small(50, 90),
    ),
    said(
        "08",
        "is clearly above the clean labels alone in every column of both data sets",
        "holds",
        ABOVE + "training on the clean",
        *ALL,
    ),
    said(
        "08",
        "up to 50 % the noisy labels *as they are* give more, clearly, on both, and at asymmetric 40 %, too",
        "fails",
        ABOVE + "cross-entropy",
        *small(20, 50, 40),
        *hundred(20, 50),
    ),
    said(
        "08",
        "At 80 and 90 % it is clearly above cross-entropy",
        "holds",
        ABOVE + "cross-entropy",
        *small(80, 90),
        *hundred(80, 90),
    ),
    said("08", "(FixMatch) is clearly above EMLC at 80 and 90 %", "fails", ABOVE + "FixMatch", *small(80, 90)),
    said(
        "08",
        "undecided at 50 and asymmetric 40 %, and clearly below it at 20 %",
        "undecided",
        ABOVE + "FixMatch",
        *small(50, 40),
    ),
    said("08", "and clearly below it at 20 %, in two thirds", "holds", ABOVE + "FixMatch", *small(20)),
    said("08", "EMLC is clearly above it at every rate", "holds", ABOVE + "FixMatch", *hundred(20, 50, 80, 90)),
    said(
        "08",
        "clearly fewer labels are right after correction than were given right",
        "fails",
        RIGHT + "were given",
        *small(20, 40),
        *hundred(20),
    ),
    said("08", "at 50 % on CIFAR-100 that is undecided", "undecided", RIGHT + "were given", *hundred(50)),
    said(
        "08",
        "is undecided against $k=1$ at 50 and 90 %",
        "undecided",
        "EMLC with k = 5 is above k = 1, at equal noisy",
        *small(50, 90),
    ),
    said("05", "at 80 and 90 % it ends clearly below that", "fails", PREDICTOR, *small(80, 90)),
    said("05", "at 50 % undecided, at 20", "undecided", PREDICTOR, *small(50)),
    said("05", "at 20 and asymmetric 40 % clearly above it and clearly below", "holds", PREDICTOR, *small(20, 40)),
    said("05", "and clearly below keeping all labels", "fails", RIGHT + "were given", *small(20, 40)),
    said(
        "05",
        "ends clearly below $k=5$, at both rates",
        "holds",
        "EMLC, k = 1: lower clean loss than EMLC, k = 5",
        *small(50, 90),
    ),
    said("07", "both undecided", "undecided", "EMLC with k = 5 is above k = 1, at equal noisy", *small(50, 90)),
    said("07", "at 80 % $k=5$ is", "fails", "EMLC with k = 5 is above k = 1, at equal noisy", *quick(80)),
    said(
        "07",
        "at 50 % all are undecided",
        "undecided",
        "EMLC with k = 5 is above k = 1, at equal noisy",
        *quick(50),
    ),
    said("08", "EMLC is clearly above MLC and MSLC;", "holds", ABOVE + "mlc", *quick(50, 90)),
    said("08", "EMLC is clearly above MLC and MSLC;", "holds", ABOVE + "mslc", *quick(50, 90)),
    said(
        "08",
        "against FasTEN, and MW-Net at 90 %, three seeds leave it undecided",
        "undecided",
        ABOVE + "fasten",
        *quick(50, 90),
    ),
    said("08", "MW-Net at 90 %, three seeds leave it undecided", "undecided", ABOVE + "mwnet", *quick(90)),
    said(
        "README",
        "in the paper, is undecided: +0.03 ± 0.14 on digits (90 %",
        "undecided",
        "the meta term adds, with adv",
        DIGITS,
    ),
    said("README", "+0.04 ± 0.85 and +0.02 ± 0.58", "undecided", "the meta term adds, with adv", *small(50, 90)),
    said("README", "+0.37 ± 0.27 on digits", "holds", "the meta term adds, with random", DIGITS),
    said(
        "README",
        "+0.00 ± 0.22 at `quick` (50 %; 90 % alike)",
        "undecided",
        "the meta term adds, with random",
        *quick(50, 90),
    ),
    *(
        said("README", "at 90 % its label embedding and adversarial", "holds", claim, DIGITS)
        for claim in ("the label embedding adds", "adversarial BCE adds")
    ),
    *(
        said("README", "own features (most) and its softmax over all", "holds", claim, DIGITS, DIGITS_50)
        for claim in ("the teacher's own feature", "a softmax over all classes")
    ),
    said("README", "which costs at `quick` (-0.58", "fails", "adversarial BCE adds", *quick(90)),
    said(
        "14",
        "so it is at `small`, with adversarial BCE.",
        "undecided",
        "the meta term adds, with adv",
        *small(50, 90),
    ),
    *(
        said(page, words, verdict, "the meta term alone adds", *quick(rate))
        for page, words, verdict, rate in (
            ("14", "the meta term alone, without BCE, barely adds at 90 %", "holds", 90),
            ("14", "while it clearly costs at 50 %", "fails", 50),
        )
    ),
    said("14", "(alone, and beside adversarial BCE, it is", "undecided", "the meta term alone adds", DIGITS),
    said(
        "14",
        "(alone, and beside adversarial BCE, it is",
        "undecided",
        "the meta term adds, with adversarial",
        DIGITS,
    ),
    said(
        "14",
        "with random BCE it is undecided at both",
        "undecided",
        "the meta term adds, with random",
        *quick(50, 90),
    ),
    said("14", "confirms clearly *more* wrong labels", "fails", "EMLC's teacher (k = 1) confirms", *quick(90)),
    said("14", "and clearly fewer on digits", "holds", "EMLC's teacher (k = 1) confirms", DIGITS),
    said("14", "makes clearly more labels right than were", "holds", RIGHT + "were given", *small(50, 80, 90)),
    said("14", "clearly fewer at 20 and asymmetric 40 %;", "fails", RIGHT + "were given", *small(20, 40)),
    said("14", "from the clean labels at 80 and 90 %", "fails", PREDICTOR, *small(80, 90)),
    said("14", "is lower for EMLC than for MLC", "holds", "EMLC, k = 1: lower clean loss than MLC", *quick(90)),
    said(
        "14",
        "and for $k=1$ than for $k=5$",
        "holds",
        "EMLC, k = 1: lower clean loss than EMLC",
        *quick(90),
        *small(50, 90),
    ),
    said(
        "15",
        "and EMLC is clearly below it",
        "fails",
        ABOVE + "FixMatch, which ignores all noisy labels, in EMLC's",
        DIGITS,
        DIGITS_50,
    ),
    *(
        said(page, words, verdict, CONSISTENT + other, scale)
        for page, words, verdict, other, scale in (
            ("15", "the student gains clearly at 90 %", "holds", "EMLC (k = 1)", DIGITS),
            ("15", "by less than a point, undecided at 50 %", "undecided", "EMLC (k = 1)", DIGITS_50),
            ("15", "clearly above that student at 90 % if it has EMLC's time", "fails", "FixMatch, in", DIGITS),
            ("15", "undecided at 50 % and at equal steps", "undecided", "FixMatch, in", DIGITS_50),
            ("15", "undecided at 50 % and at equal steps", "undecided", "FixMatch, at", DIGITS),
            ("15", "undecided at 50 % and at equal steps", "undecided", "FixMatch, at", DIGITS_50),
            ("15", "is clearly below it, and lost at 90 %", "holds", "DivideMix", DIGITS),
            ("15", "is clearly below it, and lost at 90 %", "holds", "DivideMix", DIGITS_50),
        )
    ),
    said("15", "clearly more accurate than EMLC's", "holds", "a consistent teacher is more", DIGITS, DIGITS_50),
    said("15", "makes clearly more labels right", "holds", "a consistent teacher makes more", DIGITS, DIGITS_50),
    *(
        said("15", words, "undecided", "the student of a consistent teacher gains by " + remedy, *small(90))
        for words, remedy in (
            ("No remedy gains clearly. Leaving out the meta term changes", "leaving out the meta term"),
            ("strong views by less, both undecided", "learning from a second view"),
            ("mean is 0.6 higher (undecided; four seeds would decide)", "leaving out the meta term, with 5"),
        )
    ),
    said("15", "it is undecided against FixMatch in equal time, which", "undecided", NO_META_TERM, *small(90)),
    said("README", "onto the noisy images (undecided at 90 %)", "undecided", ABOVE + "distillation", *small(90)),
    said(
        "README", "on CIFAR-10 also above their predict", "holds", ABOVE + "distillation", *small(20, 50, 80, 40)
    ),
    *(
        said(page, words, "holds", "a consistent teacher's rank finds errors better than " + other, WORSE)
        for page, words, others in (
            ("README", "finds clearly more wrong ones than EMLC's", ("EMLC",)),
            ("README", "and than cleanlab's best score (+0.68", ("cleanlab",)),
            ("10", "its rank finds clearly more wrong ones than EMLC's and cleanlab's", ("EMLC", "cleanlab")),
            ("15", "rank finds clearly more than EMLC's and than all of cleanlab's", ("EMLC", "cleanlab")),
            ("15", "is clearly above EMLC's and above each of cleanlab's scores", ("EMLC", "cleanlab")),
        )
        for other in others
    ),
    *(
        said("15", words, verdict, f"EMLC's rank finds errors better than cleanlab {which}", WORSE)
        for words in ("default score, undecided against its better one", "from the clean set, undecided against")
        for which, verdict in (("out of fold (", "holds"), ("out of fold by normalized", "undecided"))
    ),
    said(
        "15",
        "and from the clean set, undecided",
        "holds",
        "EMLC's rank finds errors better than cleanlab from",
        WORSE,
    ),
    said(
        "10",
        "clearly behind one that believes the labels on three sets of five",
        "fails",
        "EMLC's student is above cross-entropy on people's",
        *(f"CIFAR-10N {labels}, quick" for labels in ("random_label1", "random_label2", "random_label3")),
    ),
    said("08", "FasTEN is clearly *above* EMLC at 50 and 90 %", "fails", ABOVE + "fasten", *small(50, 90)),
    *(
        said(page, words, "holds", ABOVE + "cross-entropy", "CIFAR-10, quick, 40 % asymmetric")
        for page, words in (
            ("08", "(in the shorter `quick` clearly above it at asymmetric 40 %)"),
            ("14", "clearly *above* cross-entropy at asymmetric 40 % (+2.50 ± 1.50)"),
        )
    ),
    said(
        "14",
        "clearly above the clean labels that it is given in all nine",
        "holds",
        ABOVE + "training on the clean",
        *ALL,
    ),
    said(
        "14",
        "clearly above cross-entropy at 80 and 90 %",
        "holds",
        ABOVE + "cross-entropy",
        *small(80, 90),
        *hundred(80, 90),
    ),
    said(
        "14",
        "clearly below it up to 50 % and at asymmetric 40 %",
        "fails",
        ABOVE + "cross-entropy",
        *small(20, 50, 40),
        *hundred(20, 50),
    ),
    said("14", "clearly below at 80 and 90 %, on CIFAR-100", "fails", ABOVE + "FixMatch", *small(80, 90)),
    said("14", "on CIFAR-100 clearly above it everywhere", "holds", ABOVE + "FixMatch", *hundred(20, 50, 80, 90)),
    said("14", "and clearly below the clean labels at 90 %", "fails", ABOVE + "training on the clean", *quick(90)),
    said("14", "BCE does at 50 %", "holds", "random BCE adds", *quick(50)),
    said("14", "adversarial BCE costs at 90 %", "fails", "adversarial BCE adds", *quick(90)),
    said("14", "FasTEN is clearly above EMLC at both", "fails", ABOVE + "fasten", *small(50, 90)),
    said("14", "EMLC is clearly above MLC at 90 %, undecided", "holds", ABOVE + "mlc", *small(90)),
    said("14", "above MLC at 90 %, undecided at 50 %", "undecided", ABOVE + "mlc", *small(50)),
    said("08", "clearly above MLC at 90 %, undecided", "holds", ABOVE + "mlc", *small(90)),
    said("15", "*MLC* is clearly below EMLC at 90 %", "holds", ABOVE + "mlc", *small(90)),
    *(
        said("08", "At 50 % EMLC is clearly above all\nthree of these now", "holds", claim, LONGER.format(50))
        for claim in (ABOVE + "training on the clean", ABOVE + "FixMatch", ABOVE + "distillation")
    ),
    *(
        said("08", "so are FixMatch and the distilled clean labels", "undecided", claim, LONGER.format(90))
        for claim in (ABOVE + "training on the clean", ABOVE + "FixMatch", ABOVE + "distillation")
    ),
    said(
        "05",
        "At 20 and 50 % noise EMLC's correction ($k=1$) beats both trivial options clearly",
        "holds",
        PREDICTOR,
        *quick(20, 50),
    ),
    said(
        "05",
        "At 20 and 50 % noise EMLC's correction ($k=1$) beats both trivial options clearly",
        "holds",
        "EMLC (k = 1) " + GIVEN,
        *quick(20, 50),
    ),
    said("05", "replacing them all makes clearly more of them right", "fails", PREDICTOR, *quick(80, 90)),
    said(
        "05",
        "undecided against keeping all",
        "undecided",
        "EMLC (k = 1) " + GIVEN,
        "CIFAR-10, quick, 40 % asymmetric",
    ),
    said(
        "05", "keeping all, for both $k$", "undecided", "EMLC (k = 5) " + GIVEN, "CIFAR-10, quick, 40 % asymmetric"
    ),
    said(
        "05",
        "On digits EMLC's teacher confirms fewer wrong labels, clearly",
        "holds",
        "EMLC's teacher (k = 1) confirms",
        DIGITS,
    ),
    said(
        "05", "lowest for the single step", "holds", "EMLC, k = 1: lower clean loss than EMLC, k = 5", *quick(90)
    ),
    said(
        "06",
        "EMLC's classes separate better than MLC's by both numbers, clearly",
        "holds",
        "EMLC's classes separate better than those of MLC",
        *quick(90),
    ),
    said(
        "06",
        "clearly better than EMLC with the noisy ones, by both numbers",
        "fails",
        "EMLC's classes separate better than those of clean",
        *quick(90),
    ),
    said("07", "$k=2$ is clearly above $k=1$", "holds", "EMLC with k = 2 is above", DIGITS),
    said("07", "$k=5$, for five times, is undecided", "undecided", "EMLC with k = 5 is above", DIGITS),
    said(
        "09", "six options together cost about 39 points, clearly", "holds", "six of the released code's", DIGITS
    ),
    said(
        "09",
        "alone it costs about 41, clearly",
        "holds",
        "a teacher without momentum costs accuracy (k = 5)",
        DIGITS,
    ),
    said("09", "the other five together are undecided", "undecided", "the other five of them", DIGITS),
    said(
        "10",
        "clearly ahead of the out-of-fold probabilities on `worse`",
        "holds",
        "EMLC's rank finds errors better than cleanlab out",
        "CIFAR-10N worse, quick",
    ),
    said(
        "10",
        "of the clean set's network on `random 3`",
        "holds",
        "EMLC's rank finds errors better than cleanlab from",
        "CIFAR-10N random_label3, quick",
    ),
    said(
        "10",
        "Against the clean set alone EMLC is undecided on all five",
        "undecided",
        "EMLC's student, with people's labels",
        *(
            f"CIFAR-10N {name}, quick"
            for name in ("aggre", "random_label1", "random_label2", "random_label3", "worse")
        ),
    ),
    said(
        "14",
        "than MSLC at 90 %, clearly (at 50 % undecided)",
        "undecided",
        "EMLC (k = 1) recovers more labels than MSLC",
        *quick(50),
    ),
    said(
        "14",
        "clearly *worse* than those of a student of the clean labels alone",
        "fails",
        "EMLC's classes separate better than those of clean",
        *quick(90),
    ),
    said(
        "14",
        "at 80 %, and at\n  90 % after four times the steps, that is undecided",
        "undecided",
        ABOVE + "training on the clean",
        "CIFAR-10, quick, 80 % symmetric",
        "CIFAR-10, quick, 8 epochs, 90 % symmetric",
    ),
    said(
        "14",
        "At 50 % it is clearly above them, and after four times the steps above FixMatch",
        "holds",
        ABOVE + "training on the clean",
        *quick(50),
    ),
]


def text_of(page):
    if page == "README":
        return (REPOSITORY / "README.md").read_text()
    (path,) = (REPOSITORY / "notebooks").glob(f"{page}_*.ipynb")
    return "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda s: f"{s.page}: {s.words[:40]}: {s.claim[:30]}")
def test_a_sentence_says_what_the_table_of_claims_says(sentence):
    def plain(text):
        return " ".join(text.split())

    assert plain(sentence.words) in plain(text_of(sentence.page)), "the sentence is gone: change it here, too"
    for scale in sentence.scales:
        rows = CLAIMS[CLAIMS["claim"].str.startswith(sentence.claim) & (CLAIMS["scale"] == scale)]
        assert len(rows), f"no claim {sentence.claim} at {scale}"
        assert set(rows["verdict"]) == {sentence.verdict}, rows[["claim", "statistic", "verdict"]].to_string()


def test_the_table_of_parts_is_that_of_the_claims():
    """08's, of Table 3: every claim at each scale, bold where clear, empty where not run."""
    lines = [line for line in text_of("08").splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = {"digits": "digits, smoke", "`quick`": "CIFAR-10, quick", "`small`": "CIFAR-10, small"}
    known = CLAIMS[CLAIMS["where"] == "Table 3"]
    assert [row[0] for row in rows] == list(known["claim"].unique())
    for j, column in enumerate(header[1:], 1):
        name, rate, n = re.fullmatch(r"(.+), (\d+) % \(n = (\d+)\)", column).groups()
        of = known[known["scale"] == f"{names[name]}, {rate} % symmetric"].dropna(subset="statistic")
        assert len(of)
        said_of = dict(zip(of["claim"], of["statistic"], strict=True))
        clear = set(of["claim"][of["verdict"].isin(["holds", "fails"])])
        for row in rows:
            mark = "**" if row[0] in clear else ""
            statistic = said_of.get(row[0], "").removesuffix(f" points, n = {n}")
            assert row[j] == f"{mark}{statistic}{mark}", (row[0], column)


def test_no_call_stands_in_text():
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                assert not re.match(r"\w+\(.*\)\s*$", cell.source), f"{path.name}: {cell.source}"


def test_every_code_cell_of_a_notebook_was_run():
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert all(cell.execution_count for cell in cells if cell.cell_type == "code" and cell.source), path.name


def test_equal_commands_have_equal_numbers_in_every_table():
    """The same configuration gives the same bits on hardware of one name, so that a table of older code must be
    made again."""
    found = defaultdict(dict)
    for path in (REPOSITORY / "figures").glob("*.csv"):
        table = pd.read_csv(path)
        if {"command", "test_accuracy", "digest"} <= set(table):
            for row in table.dropna(subset="test_accuracy").itertuples():
                start = row.digest if "FILE" in row.command else ""  # of weights that are no part of the command
                found[row.command, start, row.hardware].setdefault(row.test_accuracy, path.name)
    assert len(found) > 100
    assert not {command: values for command, values in found.items() if len(values) > 1}


@pytest.mark.parametrize("name", ["small_cifar10", "small_cifar100"])
def test_a_command_makes_its_row_on_another_machine(name):
    """By the digest of its configuration, which has the content of the weights that it starts from."""
    for row in pd.read_csv(REPOSITORY / "figures" / f"{name}.csv").itertuples():
        *words, yaml_or_json = shlex.split(row.command)
        named = [words[i + 1 : i + 3] for i, word in enumerate(words) if word == "-p"]
        values = {name: yaml.safe_load(value) for name, value in named} | json.loads(yaml_or_json)["options"]
        assert make_config(device="cpu", **values).digest == row.digest, row.command
