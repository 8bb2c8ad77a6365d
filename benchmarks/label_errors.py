"""How well wrong human labels are found, and what a student learns despite them: EMLC, cross-entropy, cleanlab.

    python -m benchmarks.label_errors --labels cifar10n_labels.npz --seed 0 1 2 --csv label_errors.csv

For each set of labels and seed: EMLC, cross-entropy and training on the clean set alone as ordinary runs, and
out-of-fold probabilities of the cross-entropy's network with the same start. cleanlab, which must be installed,
ranks by the latter and by the clean-only network's, which has not seen the noisy images either. Finished
trainings are read back.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from emlc_lib import make_config, prepare
from emlc_lib.experiments.label_errors import (
    class_probabilities,
    flagged_quality,
    out_of_fold,
    ranking_quality,
    suspicions,
)
from emlc_lib.experiments.runs import run
from emlc_lib.runtime.files import write_atomically
from emlc_lib.runtime.places import runs_root
from emlc_lib.runtime.progress import progress
from emlc_lib.runtime.provenance import provenance
from emlc_lib.training.config import Config

KEYS = ("aggre_label", "random_label1", "random_label2", "random_label3", "worse_label")
METHODS = ("emlc", "cross_entropy", "clean_only")
# One minus the probability of the given label, as each of them has it; the gate is a probability itself.
EMLC_SCORES = {
    "both": "student and teacher",
    "student": "student",
    "teacher": "teacher without gate",
    "corrected": "corrected label",
    "gate": "gate",
}


def rankings(config: Config, root: Path, folds: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Every ranking by name: suspicion (n,), and which labels it takes for wrong, (n,) bool."""
    data = prepare(config)
    given = data.noisy_labels.numpy()
    emlc = run(config, data=data, root=root, show=False)
    scores = suspicions(emlc.student(), emlc.teacher(), data)
    changed = scores.pop("changed") > 0
    for name, said_by in EMLC_SCORES.items():
        yield f"EMLC: {said_by}", scores[name], changed

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
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    issues = find_label_issues(given, probabilities, n_jobs=1)
    for method in ("self_confidence", "normalized_margin"):
        quality = get_label_quality_scores(given, probabilities, method=method)
        yield f"cleanlab, {name}: {method.replace('_', ' ')}", 1 - quality, issues


def _other(config: Config, method: str) -> Config:
    values = {name: getattr(config, name) for name in ("dataset", "preset", "noise_type", "human_labels", "seed")}
    # Training on the clean set alone does not see the noisy labels: one run serves all of them.
    key = KEYS[0] if method == "clean_only" else config.human_key
    return make_config(method=method, human_key=key, device=config.device, **values)


def measure(config: Config, root: Path, folds: int) -> list[dict]:
    """A row per ranking and a row per student of one set of labels and one seed."""
    torch.set_num_threads(1)
    data = prepare(config)
    wrong = (data.noisy_labels != data.true_labels).numpy()
    common = {
        "dataset": config.dataset, "labels": config.human_key, "preset": config.preset, "seed": config.seed,
        "n_noisy": len(wrong), "n_clean": len(data.clean_labels), "wrong_share": wrong.mean(),
    }  # fmt: skip
    rows = [
        common | {"what": name} | ranking_quality(suspicion, wrong) | flagged_quality(flagged, wrong)
        for name, suspicion, flagged in rankings(config, root, folds)
    ]
    for method in METHODS:
        result = run(_other(config, method), root=root, show=False).result
        rows.append(common | {"what": f"student: {method}", "test_accuracy": result["test_accuracy"]})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", required=True, help="the .npz file of CIFAR-10N's labels")
    parser.add_argument("--keys", nargs="+", default=KEYS, help="sets of labels in it")
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=1, help="parallel processes, of one thread each")
    parser.add_argument("--runs", type=Path, default=None, help="the folder of runs")
    parser.add_argument("--csv", type=Path, required=True)
    args = parser.parse_args(arguments)
    configs = [
        make_config(preset=args.preset, noise_type="human", human_labels=args.labels, human_key=key, seed=seed)
        for seed in args.seed
        for key in args.keys
    ]
    root = args.runs or runs_root()
    work = (delayed(measure)(config, root, args.folds) for config in configs)
    finished = Parallel(n_jobs=args.jobs, return_as="generator_unordered")(work)
    rows: list[dict] = []
    for part in progress(finished, total=len(configs), desc="label sets and seeds"):
        rows += part
        table = pd.DataFrame(rows).assign(**_where(args))
        write_atomically(args.csv, lambda path, table=table: table.to_csv(path, index=False))


def _where(args) -> dict[str, str]:
    from importlib import metadata

    origin = provenance()
    return {
        "folds": args.folds,
        "hardware": origin["hardware"]["processor"],
        "torch": origin["versions"]["torch"],
        "cleanlab": metadata.version("cleanlab"),
        "python": origin["versions"]["python"],
        "command": "python -m benchmarks.label_errors --labels cifar10n_labels.npz "
        f"--preset {args.preset} --seed {' '.join(map(str, args.seed))} --folds {args.folds} --csv FILE",
    }


if __name__ == "__main__":
    main()
