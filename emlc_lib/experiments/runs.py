"""Finished runs on disk: doing one, finding it again, and where its numbers come from."""

import json
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import ValidationError

from ..core.teacher import Classifier, Teacher
from ..data.experiment_data import ExperimentData
from ..data.noise_file import as_noise_file, read_noise_file
from ..data.prepare import prepare
from ..methods import METHODS
from ..networks.backbones import build_classifier
from ..runtime.checkpoint import CheckpointError, load_weights, save_weights
from ..runtime.files import writable_folder, write_atomically, write_json
from ..runtime.locks import alone
from ..runtime.parallel import from_first, launch, one_of_each_machine_first, own_share
from ..runtime.parameters import ConfigError, readable, refuse_unknown
from ..runtime.places import data_root, runs_root
from ..runtime.progress import duration, say
from ..runtime.provenance import provenance
from ..runtime.randomness import Stream, torch_generator
from ..training.config import Config, config_class, from_values
from ..training.evaluation import best_epoch
from ..training.processes import check_processes
from ..training.run_digest import SCHEMA
from ..training.start import empty_teacher
from ..training.trainer import CHECKPOINT, Trained, estimate_seconds, train
from .command_line import as_given, command
from .pretraining import check_writable, expected_seconds, provide

RESULT = "result.json"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        config: what it was a function of.
        folder: where its files are.
        result: the reported numbers and their provenance; see :func:`summarise`.
        epochs, steps: the training log; see :func:`emlc_lib.training.trainer.train`.
    """

    config: Config
    folder: Path
    result: dict[str, Any]
    epochs: pd.DataFrame
    steps: pd.DataFrame

    @property
    def digest(self) -> str:
        """The end of the run's name: it tells apart all runs; made of the files that the run began with."""
        return self.result["name"].rpartition("-")[2]

    def student(self) -> Classifier:
        """The reported student, that of the best clean-set epoch, on the CPU in evaluation mode."""
        student = self._empty_classifier()
        load_weights(student, self.folder / "student.safetensors")
        return student.eval()

    def teacher(self) -> Teacher:
        """The teacher after the last epoch, on the CPU in evaluation mode.

        Raises:
            FileNotFoundError: the method has no teacher.
        """
        teacher = empty_teacher(self._empty_classifier(), self.config)
        load_weights(teacher, self.folder / "teacher.safetensors")
        return teacher.eval()

    def _empty_classifier(self) -> Classifier:
        shape = self.result["n_classes"], self.result["channels"]
        return build_classifier(self.config.model, *shape, torch_generator(0, Stream.STUDENT_WEIGHTS))


def run(
    config: Config,
    *,
    data: ExperimentData | None = None,
    root: str | Path | None = None,
    show: bool = True,
    processes: int = 1,
) -> Run:
    """The finished run of a configuration: read back if it is there, else trained, resuming if it was begun.

    Where it starts from SimCLR weights that are not there, they are pretrained first, by one process, once for all
    runs (:func:`emlc_lib.experiments.pretraining.provide`).

    Args:
        config: from :func:`emlc_lib.training.presets.make_config`.
        data: what :func:`emlc_lib.data.prepare.prepare` returned for it, if it is at hand.
        root: the folder of runs; None takes :func:`emlc_lib.runtime.places.runs_root`.
        show: whether to say what will be trained and about how long that takes, and to show progress, on stderr.
        processes: how many are started on this machine to train together, each with its share of every batch and,
            on CUDA, a GPU of its own; see :mod:`emlc_lib.runtime.parallel`. Each prepares the data itself. The run
            that is read back may have been made with another number; its provenance says with which.

    Raises:
        ConfigError: so many processes cannot train this configuration together, or SimCLR weights must be
            pretrained and the data root cannot be written to.
        ProcessError: one of several processes failed.
    """
    check_processes(config, processes)
    finished = from_first(lambda: is_finished(config, root))
    if not finished:
        from_first(lambda: check_writable() if config.awaits_weights else None)
        if data is None and (processes == 1 or config.awaits_weights):
            with one_of_each_machine_first():
                data = prepare(config)  # what it refuses leaves no folder behind and costs no pretraining
        from_first(lambda: writable_folder(runs_root(root), "runs", make=True))
        _before_training(config, data, processes, show)
    folder = run_folder(config, root)  # only now is its name sure to be the real one
    if processes > 1 and not finished:
        program = ["-m", "emlc_lib.commands", "run", "--runs", str(folder.parent.absolute())]
        torch.cuda.empty_cache()  # estimate and pretraining are over, and the processes need the memory
        launch([*program, "-y", json.dumps(as_given(config, config.model_dump()))], processes, show=show)
    elif not finished:
        busy = f"{folder.name} is being trained"
        with alone(folder / ".lock", busy, show=show) if own_share().rank == 0 else nullcontext():
            if not from_first(lambda: is_finished(config, root)):
                _train_and_store(config, data, folder, show)
    return from_first(lambda: load_run(folder))


def _before_training(config: Config, data: ExperimentData | None, processes: int, show: bool) -> None:
    """Says what will be trained and how long that takes, and provides the weights that it starts from."""
    source = config.dataset, config.model, config.device
    pretraining = None
    if show and own_share().world == 1:
        say(f"preset {config.preset} on {config.device}: trying a few steps, to tell how long it will take")
        pretraining = expected_seconds(*source) if config.awaits_weights else 0.0
        text = f"preset {config.preset} on {config.device}: {config.model}, {config.epochs} epochs"
        if data is not None:
            text += f", about {duration(pretraining + estimate_seconds(config, data))}"
            text += f" in one process; {processes} share the work" if processes > 1 else ""
        say(text + (f"; {duration(pretraining)} of it to pretrain the SimCLR start, once" if pretraining else ""))
    if from_first(lambda: config.awaits_weights):
        from_first(lambda: provide(*source, expected=pretraining, show=show))
        if config.awaits_weights:
            raise ConfigError(
                f"start: the first machine's {data_root()} has the SimCLR weights, this one's has not"
            )


def _train_and_store(config: Config, data: ExperimentData, folder: Path, show: bool) -> None:
    trained = train(config, data, folder=folder, show=show)
    if own_share().rank != 0:
        return
    if trained.method.teacher is not None:  # first: it may share the student's features
        write_atomically(folder / "teacher.safetensors", lambda p: save_weights(trained.method.teacher, p))
    # Only the stored copy is the best epoch's; the training state has been checkpointed already.
    trained.method.reported.load_state_dict(trained.best_student)
    write_atomically(folder / "student.safetensors", lambda p: save_weights(trained.method.reported, p))
    write_atomically(folder / "epochs.csv", lambda p: trained.epochs.to_csv(p, index=False))
    write_atomically(folder / "steps.csv", lambda p: trained.steps.to_csv(p, index=False))
    # The result is written last: a folder that has it is complete.
    write_json(folder / RESULT, summarise(config, data, trained))
    (folder / CHECKPOINT).unlink(missing_ok=True)


def is_finished(config: Config, root: str | Path | None = None) -> bool:
    """Whether :func:`run` would read this run back instead of training."""
    return (run_folder(config, root) / RESULT).is_file()


def state(config: Config, root: str | Path | None = None) -> str:
    """``finished`` (:func:`is_finished`), ``begun`` (there is a checkpoint to resume from) or ``missing``."""
    if is_finished(config, root):
        return "finished"
    return "begun" if (run_folder(config, root) / CHECKPOINT).is_file() else "missing"


def run_folder(config: Config, root: str | Path | None = None) -> Path:
    """Where a run's files are, or will be."""
    return runs_root(root) / config.name


def load_run(folder: Path) -> Run:
    """Reads a finished run.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: a file of it is damaged or missing, or of another version.
    """
    text = (folder / RESULT).read_text()
    try:
        result = json.loads(text)
        tables = [pd.read_csv(folder / name) for name in ("epochs.csv", "steps.csv")]
        if result["schema"] != SCHEMA:
            raise ValueError(f"it has schema {result['schema']}, which this version does not read")
        config = from_values(result["config"])
        result["name"]
        return Run(config, folder, result, *tables)
    except (OSError, ValueError, KeyError, TypeError) as error:  # pydantic's and pandas' errors are ValueErrors
        what = readable(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
        remedy = "delete it, and the run is made again"
        raise CheckpointError(f"{folder} holds a run that cannot be read ({what}); {remedy}") from error


def find_runs(root: str | Path | None = None, **wanted) -> list[Run]:
    """Every finished run whose configuration has the wanted values, e.g. ``find_runs(dataset="cifar10")``.

    Runs of a method that does not see the noise are of any. What cannot be read is left out, with a UserWarning.

    Raises:
        ConfigError: no method has such a parameter.
    """
    refuse_unknown(wanted, {name for method in METHODS for name in config_class(Config, method).model_fields})
    if wanted.get("noise_file") is not None:
        wanted["noise_sha256"] = read_noise_file(wanted.pop("noise_file")).sha256
    found = []
    for folder in sorted(path.parent for path in runs_root(root).glob(f"*/{RESULT}")):
        try:
            found.append(load_run(folder))
        except CheckpointError as error:
            warnings.warn(str(error), stacklevel=2)
    return [run for run in found if all(run.config.has(name, value) for name, value in wanted.items())]


def summarise(config: Config, data: ExperimentData, trained: Trained) -> dict[str, Any]:
    """The reported numbers of a run with their provenance, ready for JSON. Accuracies are in [0, 1].

    ``test_accuracy`` is the student's at the best clean-set epoch (section 4.1), ``last_test_accuracy`` that
    of the last epoch. The best test epoch is not among them.
    """
    epochs = trained.epochs
    best = epochs[epochs["epoch"] == best_epoch(epochs)].iloc[0]
    last = epochs.iloc[-1]
    result = {
        "schema": SCHEMA,
        "config": config.model_dump(),
        "name": config.name,
        "command": command(config, own_share().world),
        "n_classes": data.n_classes,
        "channels": int(data.clean_images.shape[1]),
        "n_noisy": len(data.noisy_labels),
        "n_clean": len(data.clean_labels),
        "wrong_share": data.corruption.wrong_share,
        "labels_sha256": as_noise_file(data, config.dataset).sha256,
        "best_epoch": int(best["epoch"]),
        "test_accuracy": float(best["student_test_accuracy"]),
        "last_test_accuracy": float(last["student_test_accuracy"]),
        "clean_accuracy": float(best["student_clean_accuracy"]),
        "steps": len(trained.steps),
        "seconds": round(trained.seconds, 1),
        "provenance": provenance(config.device),
    }
    for name in (
        "recovery_all", "recovery_wrong", "confirmed_wrong", "gate_right", "gate_wrong", "teacher_test_accuracy",
    ):  # fmt: skip
        if name in last:
            result[f"last_{name}"] = float(last[name])
    return result
