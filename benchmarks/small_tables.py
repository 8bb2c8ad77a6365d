"""The tables of :mod:`benchmarks.small`, most important first: the runs of each, as configurations."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from emlc_lib.data.datasets import load_dataset
from emlc_lib.experiments.information import EPOCH, IN_EMLCS_TIME
from emlc_lib.experiments.pretraining import pretrain_and_store
from emlc_lib.experiments.published import TABLE_1_COLUMNS
from emlc_lib.experiments.starts import ALL_EPOCHS, NARROW, RANDOM_START, of_epochs
from emlc_lib.experiments.studies import ABLATION, Study, look_ahead
from emlc_lib.experiments.sweep import grid
from emlc_lib.methods import METHODS
from emlc_lib.networks.pretrain_config import make_pretrain_config
from emlc_lib.networks.weights import shipped_weights_file
from emlc_lib.runtime.parameters import ConfigError
from emlc_lib.training.config import Config

SEEDS, FIVE_SEEDS, SEARCH_SEED = (0, 1, 2), (0, 1, 2, 3, 4), (100,)
BOTH = ("symmetric:0.5", "symmetric:0.9")
HIGH = ("symmetric:0.9", "symmetric:0.8")
CIFAR100 = (*BOTH, "symmetric:0.8", "symmetric:0.2")
CIFAR10 = (*CIFAR100, "asymmetric:0.4")

# Epochs that take a run of each method the time of EMLC's four.
EQUAL_TIME = {method: steps // EPOCH for method, steps in IN_EMLCS_TIME.items() if method != "emlc"}

# Four settings each, the default's first.
SEARCH: dict[str, tuple[tuple[str, float], ...]] = {
    "fixmatch": (
        ("fixmatch_threshold", 0.95), ("fixmatch_threshold", 0.8), ("fixmatch_threshold", 0.6),
        ("fixmatch_weight", 3.0),
    ),
    "dividemix": (
        ("dividemix_threshold", 0.5), ("dividemix_threshold", 0.7), ("dividemix_weight", 0.0),
        ("dividemix_weight", 5.0),
    ),
    "emlc_consistent": (
        ("consistency_threshold", 0.95), ("consistency_threshold", 0.8), ("consistency_threshold", 0.6),
        ("consistency_weight", 3.0),
    ),
}  # fmt: skip

# What might carry to the student what its teacher gained.
REMEDIES: Study = {
    "consistent teacher": {},
    "sure labels ungated": {"sure_labels": True},
    "student sees strong views": {"student_view": "strong"},
    "both": {"sure_labels": True, "student_view": "strong"},
    "no meta term": {"meta_term": False},
    "no meta term, as long": {"meta_term": False, "epochs": 5},  # a step takes 0.58 of the time
}

# Epochs of SimCLR before the runs of small_starts_cifar10, of the 200 of all others, and the noise of these runs.
HIGH_FIRST, MODEL = BOTH[::-1], "resnet_small"
STARTS = {5: HIGH_FIRST[:1], 25: HIGH_FIRST, 100: HIGH_FIRST}

# Epochs of its runs: as long as four of cross-entropy take, a tenth less for EMLC.
SHORT = {"emlc": 1, "cross_entropy": 4, "clean_only": 4}

# Of preset paper, most important first.
PAPER = (("emlc", 1), ("clean_only", 1), ("cross_entropy", 1), ("emlc", 5), ("mlc", 1), ("fixmatch", 1))
PAPER_NOISES = ("symmetric:0.9", "symmetric:0.5", "symmetric:0.2", "symmetric:0.8", "asymmetric:0.4")

Named = tuple[str, Config]


def chosen(searched: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The setting of each method of :data:`SEARCH` with the highest mean accuracy over both noise rates in the
    search's rows; the default's while one is missing."""
    found = {}
    for method, settings in SEARCH.items():
        means = {}
        for name, value in settings:
            rows = searched[searched["name"] == _label(method, name, value)] if len(searched) else searched
            if len(rows) == (1 if method == "fixmatch" else len(BOTH)):  # which looks at no noise and is run once
                means[name, value] = rows["test_accuracy"].astype(float).mean()
        best = max(means, key=means.__getitem__) if len(means) == len(settings) else settings[0]
        found[method] = dict([best])
    return found


def equal_time(
    noises: tuple, seeds: tuple[int, ...], *methods: str, settings: dict | None = None, **common: Any
) -> Iterator[Config]:
    """Methods for as long as EMLC's four epochs with k = 1 take."""
    for method in methods:
        changes = (settings or {}).get(method, {})
        yield from grid(noises, [method], [1], seeds, epochs=EQUAL_TIME[method], **common | changes)


def plain(name: str, human: Path | None, searched: pd.DataFrame | None = None, **common: Any) -> Iterator[Config]:
    """The runs of a table whose rows need no name; settings by the rows of the search, see :func:`chosen`."""
    settings = chosen(pd.DataFrame() if searched is None else searched)
    rivals = ("cross_entropy", "fixmatch", "clean_only")
    on_100 = common | {"dataset": "cifar100"}
    match name:
        case "small_cifar10":
            yield from grid(CIFAR10, ["emlc", *rivals], [1], SEEDS, **common)
            yield from grid(BOTH, ["emlc"], [5], SEEDS, **common)
            yield from grid(BOTH, ["distilled"], [1], SEEDS, **common)
        case "small_cifar100":
            yield from grid(CIFAR100, ["emlc", *rivals], [1], SEEDS, **on_100)
        case "small_short_cifar10" | "small_short_cifar100":
            # An epoch of EMLC takes a tenth less time than four of cross-entropy.
            short = {"dataset": name.rpartition("_")[2], "epochs": 1}
            if short["dataset"] == "cifar100":
                short["precision"] = "float32"  # its rows are of a CPU without instructions for bfloat16
            yield from grid(HIGH, ["emlc"], [1], SEEDS, **common | short)
        case "small_equal_time_cifar10":
            yield from equal_time(CIFAR10, SEEDS, *rivals, **common)
        case "small_equal_time_cifar100":
            yield from equal_time(CIFAR100, SEEDS, *rivals, **on_100)
        case "search_low_small_cifar10":  # below the rates of search_small_cifar10
            yield from grid(BOTH, [*rivals, "distilled"], [1], SEARCH_SEED, lr=0.01, **common)
            yield from grid(BOTH, ["emlc"], [1], SEARCH_SEED, lr=0.01, teacher_lr=0.01, **common)
        case "small_equal_updates_cifar10":  # k = 5 on five times as many noisy images as k = 1
            for k in (1, 5):
                yield from grid(BOTH, ["emlc"], [k], SEEDS, epochs=k, **common)
        case "small_extension_cifar10":
            yield from grid(BOTH, ["emlc", *rivals], [1], FIVE_SEEDS, **common)
            yield from equal_time(
                BOTH, FIVE_SEEDS, "emlc_consistent", "dividemix", *rivals[:2], settings=settings, **common
            )
        case "small_cifar10_further":
            yield from grid(BOTH, ["clean_only"], [1], SEEDS, autoaugment=False, **common)
            for key, seeds in (("worse_label", FIVE_SEEDS), ("aggre_label", SEEDS)) if human else ():
                labels = common | {"noise_type": "human", "human_labels": human, "human_key": key}
                yield from grid([None], ["emlc", "cross_entropy"], [1], seeds, **labels)
                tuned = settings if key == "worse_label" else {}  # the others' rows were made before the search
                extended = ("emlc_consistent", "dividemix", "cross_entropy")
                yield from equal_time((None,), seeds, *extended, settings=tuned, **labels)
        case "small_other_methods_cifar10":
            yield from grid(BOTH, ["mlc", "fasten"], [1], SEEDS, **common)
            yield from grid([noise for noise in CIFAR10 if noise not in BOTH], ["fasten"], [1], SEEDS, **common)
        case "small_other_methods_cifar100":
            yield from grid(CIFAR100, ["fasten"], [1], SEEDS, **on_100)


def paper(dataset: str, seeds: int, **common: Any) -> list[Named]:
    """The runs of preset ``paper`` on one data set, most important first, all of seed 0 before the others.

    Of the noises those of the data set in Table 1. Training on the clean labels alone does not see the noise: one
    run of a seed serves all.
    """
    table_1 = {f"{kind}:{rate:g}" for name, kind, rate in TABLE_1_COLUMNS if name == dataset}
    noises = [noise for noise in PAPER_NOISES if noise in table_1] or PAPER_NOISES[:1]
    return [
        ("", config)
        for seed, noise, (method, k) in itertools.product(range(seeds), noises, PAPER)
        if METHODS[method].sees_noise or noise == noises[0]
        for config in grid([noise], [method], [k], [seed], dataset=dataset, **common)
    ]


def named(
    name: str, starts: Path, begun: pd.DataFrame, searched: pd.DataFrame | None = None, **common: Any
) -> Iterator[Named]:
    """The runs of a table whose rows have a name, as those of :mod:`emlc_lib.experiments.studies`.

    Args:
        starts: the folder of SimCLR weights of fewer epochs, which are made there if they are yet to come.
        begun: the rows that the table has.
        searched: those of the search, see :func:`chosen`.

    Raises:
        ConfigError: some of a start's runs are done, and the weights that they began with are not there.
    """
    match name:
        case "search_extension_small_cifar10":
            for method, settings in SEARCH.items():
                study = {_label(method, n, v): {n: v, "epochs": EQUAL_TIME[method]} for n, v in settings}
                yield from _runs(study, [method], SEARCH_SEED, **common)
        case "small_remedies_cifar10":
            found = chosen(pd.DataFrame() if searched is None else searched)
            common |= {"epochs": EQUAL_TIME["emlc_consistent"], **found["emlc_consistent"]}
            yield from _runs(REMEDIES, ["emlc_consistent"], SEEDS, **common)
        case "small_ablation_cifar10":
            yield from _runs(ABLATION, ["emlc"], SEEDS, **common)
        case "small_short_ablation_cifar10":  # an epoch of each of its rows
            yield from _runs(ABLATION, ["emlc"], SEEDS, HIGH_FIRST[:1], epochs=1, **common)
        case "small_look_ahead_cifar10":
            study = look_ahead([1, 2, 5, 10], ["paper"]) | look_ahead([5], ["momentum", "exact"])
            yield from _runs(study, ["emlc"], SEEDS, **common)
        case "small_starts_cifar10":
            study: dict = {RANDOM_START: {"start": "random"}, NARROW: {"model": "resnet_narrow"}, ALL_EPOCHS: {}}
            for epochs, noises in STARTS.items():
                rows = begun[begun["name"] == of_epochs(epochs)] if len(begun) else begun
                if len(rows) < len(SEEDS) * (2 * len(noises) + 1):  # what looks at no noise is run once
                    study[of_epochs(epochs)] = start(epochs, starts, len(rows) > 0, common["device"])
            run_at = {of_epochs(epochs): noises for epochs, noises in STARTS.items()}
            for noise, (label, changes) in itertools.product(HIGH_FIRST, study.items()):
                for method, epochs in SHORT.items() if noise in run_at.get(label, HIGH_FIRST) else ():
                    if noise == HIGH_FIRST[0] or METHODS[method].sees_noise:
                        configs = grid([noise], [method], [1], SEEDS, epochs=epochs, **common | changes)
                        yield from ((label, config) for config in configs)


def _label(method: str, name: str, value: float) -> str:
    return f"{method}, {name} {value}"


def _runs(
    study: Study, methods: list[str], seeds: tuple[int, ...], noises: tuple = BOTH, **common: Any
) -> Iterator[Named]:
    for label, changes in study.items():
        changes = dict(changes)
        ks = [changes.pop("k", 1)]
        yield from ((label, config) for config in grid(noises, methods, ks, seeds, **common | changes))


def start(epochs: int, folder: Path, begun: bool, device: str) -> dict[str, str]:
    """The parameters of runs that begin with SimCLR of so many epochs; weights and card: ``folder/EPOCHS``."""
    usual = make_pretrain_config(dataset="cifar10", model=MODEL, device=device)
    file = folder / str(epochs) / shipped_weights_file("cifar10", MODEL).name
    if begun and not file.is_file():
        raise ConfigError(f"--out: {file} is not there, with which rows of this table began")
    if not file.is_file():
        shorter = {"epochs": epochs, "warmup_epochs": usual.warmup_epochs * epochs / usual.epochs}
        file.parent.mkdir(parents=True, exist_ok=True)
        pretrain_and_store(usual.model_copy(update=shorter), load_dataset("cifar10"), file.parent)
    return {"start_weights": str(file)}


def start_probes(folder: Path) -> pd.DataFrame:
    """The probes of the starts of small_starts_cifar10, as their cards say, and what made them."""
    shipped = {model: shipped_weights_file("cifar10", model).with_suffix(".json") for model in (MODEL, NARROW)}
    files = {ALL_EPOCHS: shipped[MODEL], NARROW: shipped[NARROW]}
    files |= {of_epochs(n): folder / str(n) / shipped[MODEL].name for n in STARTS}
    rows = []
    for name, file in files.items():
        if file.is_file():
            card = json.loads(file.read_text())
            found = card["provenance"]
            row = {column: card[column] for column in ("model", "epochs", "linear", "knn", "minutes")}
            row |= {"hardware": found["hardware"].get("gpu") or found["hardware"]["processor"]}
            row |= {"threads": found["hardware"]["threads"], "torch": found["versions"]["torch"]}
            rows.append({"name": name} | row | {"command": card["command"]})
            if name == ALL_EPOCHS:
                rows.append(rows[0] | {"name": RANDOM_START, "epochs": 0, "minutes": 0.0} | card["untrained"])
    return pd.DataFrame(rows)


PLAIN = (
    "small_cifar10", "small_cifar100", "small_short_cifar100", "small_short_cifar10", "small_equal_time_cifar10",
    "small_extension_cifar10", "small_cifar10_further", "small_equal_time_cifar100", "small_equal_updates_cifar10",
    "small_other_methods_cifar10", "small_other_methods_cifar100", "search_low_small_cifar10",
)  # fmt: skip
SEARCH_TABLE, STARTS_TABLE = "search_extension_small_cifar10", "small_starts_cifar10"
NAMED = (
    SEARCH_TABLE, "small_remedies_cifar10", "small_short_ablation_cifar10", "small_ablation_cifar10",
    "small_look_ahead_cifar10", STARTS_TABLE,
)  # fmt: skip
# Settings are chosen before they are used.
TABLES = (*PLAIN[:5], SEARCH_TABLE, *PLAIN[5:], *NAMED[1:])
