"""How well wrong human labels are found, and what a student learns despite them: EMLC, its extension, cleanlab.

    python -m benchmarks.label_errors --labels cifar10n_labels.npz --seed 0 1 2 --csv label_errors.csv

For each set of labels and seed: EMLC, ``emlc_consistent`` (at preset ``small`` for as long as EMLC takes, its
setting as searched), cross-entropy and training on the clean set alone as ordinary runs, and out-of-fold
probabilities of the cross-entropy's network with the same start. cleanlab, which must be installed, ranks by the
latter and by the clean-only network's, which has not seen the noisy images either. Finished trainings are read
back. The committed table of preset ``quick`` is an earlier version's, without ``emlc_consistent``.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from emlc_lib import make_config, prepare
from emlc_lib.core.teacher import Classifier, Teacher
from emlc_lib.data.experiment_data import ExperimentData
from emlc_lib.experiments.label_errors import ranking_quality
from emlc_lib.experiments.runs import run
from emlc_lib.runtime.checkpoint import read_npz, write_npz
from emlc_lib.runtime.files import write_atomically
from emlc_lib.runtime.parameters import ConfigError
from emlc_lib.runtime.places import REPOSITORY, runs_root
from emlc_lib.runtime.progress import progress
from emlc_lib.runtime.provenance import provenance
from emlc_lib.runtime.randomness import Stream, numpy_generator
from emlc_lib.training.config import Config
from emlc_lib.training.correction import soft_labels
from emlc_lib.training.evaluation import predict
from emlc_lib.training.presets import usable_device
from emlc_lib.training.trainer import train

from .carry import read
from .small_tables import EQUAL_TIME, SEARCH_TABLE, chosen

KEYS = ("aggre_label", "random_label1", "random_label2", "random_label3", "worse_label")
WITH_TEACHER = {"emlc": "EMLC", "emlc_consistent": "consistent"}
METHODS = (*WITH_TEACHER, "cross_entropy", "clean_only")
# One minus the probability of the given label, as each of them has it; the gate is a probability itself.
EMLC_SCORES = {
    "both": "student and teacher",
    "student": "student",
    "teacher": "teacher without gate",
    "corrected": "corrected label",
    "gate": "gate",
}


def class_probabilities(model: Classifier, data: ExperimentData) -> np.ndarray:
    """A classifier's probabilities (n, C) float64 for the noisy images, without augmentation."""
    model = model.eval().to(data.noisy_images.device)
    return predict(model, data.noisy_images, data).double().softmax(1).cpu().numpy()


def suspicions(student: Classifier, teacher: Teacher, data: ExperimentData) -> dict[str, np.ndarray]:
    """What trained networks say against the given labels of the noisy set; each (n,), larger for more suspicious.

    Returns:
        One minus the probability of the given label by ``student``; by ``teacher``, its own, without the gate;
        by ``both``, the mean of the two, by which :class:`emlc_lib.EMLCClassifier` ranks; and after the correction
        of eq. 6, ``corrected``. ``gate`` is one minus the gate.
    """
    teacher = teacher.eval().to(data.noisy_images.device)
    soft, gate, own = (part.cpu() for part in soft_labels(teacher, data.noisy_images, data.noisy_labels, data))
    given = data.noisy_labels.cpu()
    by_student = class_probabilities(student, data)[np.arange(len(given)), given]
    by_teacher, corrected = (p.gather(1, given[:, None])[:, 0].numpy() for p in (own, soft))
    return {
        "student": 1 - by_student,
        "teacher": 1 - by_teacher,
        "both": 1 - (by_student + by_teacher) / 2,
        "corrected": 1 - corrected,
        "gate": 1 - gate.numpy(),
    }


def out_of_fold(config: Config, data: ExperimentData, *, folds: int, file: Path | None = None) -> np.ndarray:
    """Probabilities (n, C) float64 of each noisy image, from a training that did not see it.

    The noisy set is cut into ``folds`` parts with the same shares of the given labels; the configured method is
    trained on all but one of them, from the same start each time, and predicts that one.

    Args:
        config: of the trainings; their epochs are passes over all parts but one.
        data: from :func:`emlc_lib.data.prepare.prepare` with the same configuration.
        folds: 2 or more.
        file: an ``.npz`` file to which finished folds are written, and from which a begun series goes on.

    Raises:
        ConfigError: a damaged file, or one of another configuration; fewer than two folds.
    """
    if folds < 2:
        raise ConfigError(f"folds: must be at least 2 (got {folds})")
    parts = _folds(config.seed, data.noisy_labels, folds)
    done: dict[str, np.ndarray] = {}
    if file and file.is_file():
        done = read_npz(file, "file")
        if str(done.pop("config", "")) != config.digest:
            raise ConfigError(f"file: {file.name} is of another configuration; use another one")
    for i, held_out in enumerate(parts):
        if f"fold{i}" in done:
            continue
        trained = train(config, _without(data, held_out), show=False)
        unseen = dataclasses.replace(data, noisy_images=data.noisy_images[torch.from_numpy(held_out)])
        done[f"fold{i}"] = class_probabilities(trained.method.reported, unseen)
        if file:
            write_npz(file, done | {"config": config.digest})
    probabilities = np.empty((len(data.noisy_labels), data.n_classes))
    for i, held_out in enumerate(parts):
        probabilities[held_out] = done[f"fold{i}"]
    return probabilities


def _folds(seed: int, labels: Tensor, folds: int) -> list[np.ndarray]:
    state = int(numpy_generator(seed, Stream.FOLDS).integers(2**31))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=state)
    return [part for _, part in splitter.split(np.zeros(len(labels)), labels.cpu().numpy())]


def _without(data: ExperimentData, held_out: np.ndarray) -> ExperimentData:
    """The data without some of the noisy images, and without a test set, so that nothing is measured on it."""
    keep = torch.ones(len(data.noisy_labels), dtype=torch.bool)
    keep[torch.from_numpy(held_out)] = False
    index = keep.nonzero()[:, 0].to(data.noisy_labels.device)
    return dataclasses.replace(
        data,
        noisy_images=data.noisy_images[index],
        noisy_labels=data.noisy_labels[index],
        true_labels=data.true_labels[index],
        test_images=data.test_images[:0],
        test_labels=data.test_labels[:0],
    )


def rankings(config: Config, root: Path, folds: int) -> Iterator[tuple[str, np.ndarray]]:
    """Every ranking by name: suspicion (n,)."""
    data = prepare(config)
    given = data.noisy_labels.cpu().numpy()
    for method, of in WITH_TEACHER.items():
        trained = run(_other(config, method), data=data, root=root, show=False)
        scores = suspicions(trained.student(), trained.teacher(), data)
        for name, said_by in EMLC_SCORES.items():
            yield f"{of}: {said_by}", scores[name]

    sources = {
        "clean set only": class_probabilities(
            run(_other(config, "clean_only"), root=root, show=False).student(), data
        )
    }
    plain = _other(config, "cross_entropy")
    file = root / "out_of_fold" / f"{plain.name}-{folds}.npz"
    sources["out of fold"] = out_of_fold(plain, data, folds=folds, file=file)
    for name, probabilities in sources.items():
        yield from _by_cleanlab(name, given, probabilities)


def _by_cleanlab(name: str, given: np.ndarray, probabilities: np.ndarray):
    from cleanlab.rank import get_label_quality_scores

    for method in ("self_confidence", "normalized_margin"):
        quality = get_label_quality_scores(given, probabilities, method=method)
        yield f"cleanlab, {name}: {method.replace('_', ' ')}", 1 - quality


def _other(config: Config, method: str) -> Config:
    kept = ("dataset", "preset", "noise_type", "human_labels", "seed", "precision")
    values: dict = {name: getattr(config, name) for name in kept}
    if method == "emlc_consistent" and config.preset == "small":
        values |= {
            "epochs": EQUAL_TIME[method],
            **chosen(read(REPOSITORY / "figures" / f"{SEARCH_TABLE}.csv"))[method],
        }
    # Training on the clean set alone does not see the noisy labels: one run serves all of them.
    key = KEYS[0] if method == "clean_only" else config.human_key
    return make_config(method=method, human_key=key, device=config.device, **values)


def measure(config: Config, root: Path, folds: int, students: Sequence[str]) -> list[dict]:
    """A row per ranking and a row per student of one set of labels and one seed."""
    torch.set_num_threads(1)
    data = prepare(config)
    wrong = (data.noisy_labels != data.true_labels).cpu().numpy()
    common = {
        "dataset": config.dataset, "labels": config.human_key, "preset": config.preset, "seed": config.seed,
        "n_noisy": len(wrong), "n_clean": len(data.clean_labels), "wrong_share": wrong.mean(),
    }  # fmt: skip
    rows = [
        common | {"what": name} | ranking_quality(suspicion, wrong)
        for name, suspicion in rankings(config, root, folds)
    ]
    for method in students:
        result = run(_other(config, method), root=root, show=False).result
        rows.append(common | {"what": f"student: {method}", "test_accuracy": result["test_accuracy"]})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", required=True, help="the .npz file of CIFAR-10N's labels")
    parser.add_argument("--keys", nargs="+", default=KEYS, help="sets of labels in it")
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default=None, help="another than the preset's")
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--students", nargs="+", default=METHODS, choices=METHODS, help="whose accuracy has a row")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=1, help="parallel processes, of one thread each")
    parser.add_argument("--runs", type=Path, default=None, help="the folder of runs")
    parser.add_argument("--csv", type=Path, required=True)
    args = parser.parse_args(arguments)
    args.device = usable_device(args.device)
    common = {"preset": args.preset, "device": args.device}
    common |= {"precision": args.precision} if args.precision else {}
    configs = [
        make_config(**common, noise_type="human", human_labels=args.labels, human_key=key, seed=seed)
        for seed in args.seed
        for key in args.keys
    ]
    root = args.runs or runs_root()
    work = (delayed(measure)(config, root, args.folds, args.students) for config in configs)
    finished = Parallel(n_jobs=args.jobs, return_as="generator_unordered")(work)
    rows: list[dict] = []
    for part in progress(finished, total=len(configs), desc="label sets and seeds"):
        rows += part
        table = pd.DataFrame(rows).assign(**_where(args))
        write_atomically(args.csv, lambda path, table=table: table.to_csv(path, index=False))


def _where(args) -> dict[str, str]:
    from importlib import metadata

    origin = provenance(args.device)
    return {
        "folds": args.folds,
        "hardware": origin["hardware"].get("gpu") or origin["hardware"]["processor"],
        "threads": 1,
        "torch": origin["versions"]["torch"],
        "cleanlab": metadata.version("cleanlab"),
        "python": origin["versions"]["python"],
        "command": "python -m benchmarks.label_errors --labels cifar10n_labels.npz "
        f"--keys {' '.join(args.keys)} --preset {args.preset} "
        + (f"--precision {args.precision} " if args.precision else "")
        + (f"--students {' '.join(args.students)} " if args.students != METHODS else "")
        + f"--seed {' '.join(map(str, args.seed))} --folds {args.folds} --csv FILE",
    }


if __name__ == "__main__":
    main()
