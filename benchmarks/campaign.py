"""The queue of a GPU machine: its pieces, their state, and what is left of them when the time is up.

:mod:`benchmarks.gpu` is its command line, and says what it does.
"""

import argparse
import hashlib
import importlib.util
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from emlc_lib.data.datasets import is_available
from emlc_lib.experiments.pretraining import provide
from emlc_lib.experiments.published import TABLE_1_COLUMNS
from emlc_lib.experiments.runs import is_finished, run, state
from emlc_lib.experiments.sweep import grid
from emlc_lib.experiments.tables import run_table
from emlc_lib.methods import METHODS
from emlc_lib.networks.pretrain_config import make_pretrain_config
from emlc_lib.networks.simclr import CHECKPOINT as PRETRAINING
from emlc_lib.runtime.execution import check_device
from emlc_lib.runtime.files import write_atomically, write_json
from emlc_lib.runtime.parameters import ConfigError
from emlc_lib.runtime.places import REPOSITORY, data_root, runs_root, weights_root
from emlc_lib.runtime.progress import duration, say
from emlc_lib.runtime.provenance import provenance
from emlc_lib.training.config import Config
from emlc_lib.training.log import one_line

from .carry import COST_KEY, COSTS, merge, read
from .deadline import OutOfTime, alarm
from .step_cost import by_execution
from .variants import executed_variants

CAMPAIGN = (("emlc", 1), ("clean_only", 1), ("cross_entropy", 1), ("emlc", 5), ("mlc", 1), ("fixmatch", 1))
NOISES = ("symmetric:0.9", "symmetric:0.5", "symmetric:0.2", "symmetric:0.8", "asymmetric:0.4")
EXECUTIONS: dict[str, dict] = {
    "float32": {},
    "TF32": {"precision": "tf32"},
    "bfloat16": {"precision": "bfloat16"},
    "CUDA graph, TF32": {"precision": "tf32", "cuda_graph": True},
}
PAPER = dict(
    device="cuda", datasets=("cifar10", "cifar100"), runs={"preset": "paper"},
    costs={"model": "resnet34", "noisy": 128, "clean": 32, "repeats": 20},
)  # fmt: skip
TRIAL = dict(
    device="cpu", datasets=("digits",), runs={"preset": "smoke", "epochs": 2, "start": "simclr"},
    costs={"model": "small_cnn", "noisy": 8, "clean": 4, "repeats": 1},
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One piece of work; its state is finished, begun, missing or waiting (for its SimCLR start)."""

    group: str
    name: str
    state: Callable[[], str]
    do: Callable[[], None]

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


class Campaign:
    """All pieces and what of them is done. Raises a ConfigError if the device is missing."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.what = args, TRIAL if args.trial else PAPER
        seconds = 60 * args.minutes
        self.ends = time.monotonic() + seconds - min(15, 0.1 * seconds)  # the rest is for the report
        self.device = self.what["device"]
        try:
            check_device(self.device)
        except ValueError as error:
            raise ConfigError(f"device: {error}; --trial needs no other") from None
        self.source, self.code, self.store = provenance(self.device), code_digest(), runs_root() / "gpu"
        self.tests = self.store / f"tests-{self.code}.json"
        self.errors: dict[str, str] = {}
        self.configs: list[Config] = []
        self.pieces = [Piece("code", "tests marked gpu", self._tests_state, self._test)]
        self.pieces += [self._cost(name) for name in EXECUTIONS]
        for dataset in filter(is_available, self.what["datasets"]):
            configs = campaign_runs(dataset, args.seeds, device=self.device, **self.what["runs"])
            table = read(args.figures / f"{configs[0].preset}_{dataset}.csv")
            collected = set(table.get("digest", ()))
            self.pieces += [self._start(configs[0]), *(self._one_run(config, collected) for config in configs)]
            self.configs += configs

    def _tests_state(self) -> str:
        return "finished" if self.tests.is_file() else "missing"

    def _test(self) -> None:
        result = gpu_tests(self.store / "tests.xml")
        if "not run" not in result:
            write_json(self.tests, result)
        self.say(f"  {result}")

    def _cost(self, execution: str) -> Piece:
        wanted = set(executed_variants(None, **EXECUTIONS[execution]))
        hardware = self.source["hardware"].get("gpu") or self.source["hardware"]["processor"]

        def state() -> str:
            rows = pd.concat([read(self.store / COSTS), read(self.args.figures / COSTS)]).fillna("")
            setting = {"execution": execution, "hardware": hardware, "model": self.what["costs"]["model"]}
            for name, value in setting.items() if len(rows) else ():
                rows = rows[rows[name] == value]
            known = set()
            for row in rows.to_dict("records"):
                # Rows that were collected have no errors; what failed may work with other code.
                if row.get("error", "") == "" or row["code"] == self.code:
                    known.add(row["variant"])
            return "finished" if known >= wanted else "missing"

        def measure() -> None:
            table = by_execution(EXECUTIONS[execution], device=self.device, **self.what["costs"])
            table = table.assign(execution=execution, code=self.code)
            merge(self.store / COSTS, table, COST_KEY, replace=True)
            for row in table.itertuples():
                self.say(f"  {row.variant}: {row.error or f'{1000 * row.seconds:.1f} ms, {row.ratio:.2f} plain'}")

        return Piece("step cost", execution, state, measure)

    def _start(self, config: Config) -> Piece:
        pretraining = make_pretrain_config(dataset=config.dataset, model=config.model, device=config.device)
        checkpoint = weights_root() / pretraining.name / PRETRAINING

        def state() -> str:
            unfinished = "begun" if checkpoint.is_file() else "missing"
            return unfinished if config.awaits_weights else "finished"

        def pretrain() -> None:
            on_epoch = self._on_epoch(pretraining.epochs)
            provide(
                config.dataset, config.model, config.device, show=False, on_epoch=lambda _, row: on_epoch(row)
            )  # fmt: skip

        return Piece(config.dataset, f"SimCLR start of {config.model}", state, pretrain)

    def _one_run(self, config: Config, collected: set[str]) -> Piece:
        def its_state() -> str:
            if config.awaits_weights:
                return "waiting"
            return "finished" if config.digest in collected else state(config)

        def do() -> None:
            result = run(config, show=False, on_epoch=self._on_epoch(config.epochs)).result
            self.say(f"  test accuracy {result['test_accuracy']:.2%}, {duration(result['seconds'])}")

        group = f"{config.dataset}, {config.noise_type} {config.noise:g}, seed {config.seed}"
        name = config.method + (f" k={config.k}" if hasattr(config, "k") else "")
        return Piece(group, name, its_state, do)

    def _on_epoch(self, epochs: int) -> Callable[[dict[str, float]], None]:
        """Says each epoch, whose checkpoint is on its way, and stops where the next one would not fit."""
        last = time.monotonic()

        def on_epoch(row: dict[str, float]) -> None:
            nonlocal last
            last, seconds = time.monotonic(), time.monotonic() - last
            numbers = f"epoch {row['epoch']}: NT-Xent {row['loss']:.3f}" if "loss" in row else one_line(row)
            self.say(f"  {numbers}; of {epochs}; {seconds:.1f} s")
            if row["epoch"] < epochs and last + 1.1 * seconds > self.ends:  # epochs vary a little
                raise OutOfTime

        return on_epoch

    def work(self) -> bool:
        """Does the pieces until none is left or the time is up; whether none has failed."""
        self.say(f"code {self.code}, {self.source['hardware']}, {duration(60 * self.args.minutes)}")
        for name in itertools.filterfalse(is_available, self.what["datasets"]):
            self.say(f"{name}: left out, its files are not in {data_root()}")
        for group, pieces in itertools.groupby(self.pieces, key=lambda piece: piece.group):
            self.say(f"{group}: " + ", ".join(f"{piece.name} {piece.state()}" for piece in pieces))
        if self._left():
            try:
                with alarm(self.ends - time.monotonic()):
                    for piece in self.pieces:
                        if piece.state() in ("missing", "begun"):
                            self._try(piece)
            except OutOfTime:
                self.say("the time is up")
        else:
            self.say("nothing to do")
        self.report()
        left = self._left()
        self.say(f"{len(left)} pieces are left, next: {left[0]}" if left else "everything is finished")
        return not self.errors

    def _left(self) -> list[Piece]:
        return [piece for piece in self.pieces if piece.state() != "finished"]

    def _try(self, piece: Piece) -> None:
        self.say(f"{piece}, {piece.state()}; {duration(self.ends - time.monotonic())} left")
        try:
            piece.do()
        except Exception as error:
            self.errors[str(piece)] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self.say(f"  failed: {self.errors[str(piece)]}")
        self.report()

    def report(self) -> None:
        """Writes what comes back; it is whole at any time."""
        out = self.args.out
        if runs := [run(config, show=False) for config in self.configs if is_finished(config)]:
            write_atomically(out / "runs.csv", lambda path: run_table(runs).to_csv(path, index=False))
        if (self.store / COSTS).is_file():
            write_atomically(out / COSTS, lambda path: path.write_bytes((self.store / COSTS).read_bytes()))
        report = {
            "code": self.code,
            "command": " ".join(["python -m benchmarks.gpu", *self.args.given]),
            "provenance": self.source,
            "tests": json.loads(self.tests.read_text()) if self.tests.is_file() else {},
            "pieces": {str(piece): piece.state() for piece in self.pieces},
            "errors": self.errors,
        }
        write_json(out / "report.json", report)

    def say(self, text: str) -> None:
        """A line on stderr and in the log."""
        say(text)
        with open(self.args.out / "log.txt", "a") as log:
            log.write(text + "\n")


def campaign_runs(dataset: str, seeds: int, **common) -> list[Config]:
    """The runs on one data set, most important first, all of seed 0 before the others.

    Of the noises those of the data set in Table 1. Training on the clean labels alone does not see the noise: one
    run of a seed serves all.
    """
    table_1 = {f"{kind}:{rate:g}" for name, kind, rate in TABLE_1_COLUMNS if name == dataset}
    noises = [noise for noise in NOISES if noise in table_1] or NOISES[:1]
    return [
        config
        for seed, noise, (method, k) in itertools.product(range(seeds), noises, CAMPAIGN)
        if METHODS[method].sees_noise or noise == noises[0]
        for config in grid([noise], [method], [k], [seed], dataset=dataset, **common)
    ]


def gpu_tests(report: Path) -> dict[str, object]:
    """Runs the tests marked ``gpu``; the numbers in the XML file that pytest writes, and what failed."""
    for name in ("pytest", "pytest_timeout", "beartype"):
        if importlib.util.find_spec(name) is None:
            return {"not run": f"{name} is not importable"}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    # Only these files, since others need what is not here.
    files = [str(file) for file in (REPOSITORY / "tests").glob("test_*.py") if "mark.gpu" in file.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-o", "timeout=120", f"--junitxml={report}"]
    done = subprocess.run([*command, *sorted(files)], cwd=REPOSITORY, capture_output=True, text=True)
    if not report.is_file():
        return {"not run": (done.stdout + done.stderr)[-500:]}
    root = ElementTree.parse(report).getroot()
    counts = {name: int(root[0].attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    failed = [
        case.attrib["name"] for case in root.iter("testcase") if {part.tag for part in case} & {"failure", "error"}
    ]
    return counts | {"failed": failed, "seconds": float(root[0].attrib["time"])}


def code_digest() -> str:
    """Eight hexadecimal digits of the code and its tests, as they are in this checkout, committed or not."""
    digest = hashlib.sha256()
    for file in sorted(
        file for folder in ("emlc_lib", "benchmarks", "tests") for file in (REPOSITORY / folder).rglob("*.py")
    ):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]
