"""Many runs, in parallel processes: ``python -m emlc_lib.experiments.sweep --help``."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from joblib import Parallel, delayed

from ..methods import METHODS
from ..runtime.checkpoint import CheckpointError, write_atomically
from ..runtime.execution import cores
from ..runtime.parameters import ConfigError, DataUnavailable
from ..runtime.progress import progress
from ..training.config import Config
from ..training.presets import make_config
from .pretraining import provide
from .runs import Run, is_finished, run
from .tables import accuracy_table, run_table


def grid(noises: Iterable[str], methods: Iterable[str], ks: Iterable[int], seeds: Iterable[int], **common) -> list:
    """Every combination as a configuration; not all methods look k steps ahead, or at the noise.

    Args:
        noises: e.g. ``symmetric:0.9``; ``real`` for Clothing1M. methods, ks, seeds: values of those parameters.
        common: further parameters of :func:`emlc_lib.training.presets.make_config`.

    Raises:
        ConfigError: any value that is not allowed; before anything runs.
    """
    noises, methods, ks, seeds = listed(noises=noises, methods=methods, ks=ks, seeds=seeds)
    configs: dict[str, Config] = {}
    for seed, noise, method in itertools.product(seeds, noises, methods):
        kind, _, rate = str(noise).partition(":")
        try:
            values = {"noise_type": kind} if noise == "real" else {"noise_type": kind, "noise": float(rate)}
        except ValueError:
            raise ConfigError(f"noise: {noise!r} is not of the form symmetric:0.9") from None
        known = METHODS.get(method, METHODS["emlc"])  # make_config refuses what is unknown
        for k in ks if known.looks_ahead else [None]:
            config = make_config(method=method, k=k, seed=seed, **values, **common)
            # What does not see the noise is one run for every rate.
            configs.setdefault(config.name if known.sees_noise else f"{seed}-{method}", config)
    return list(configs.values())


def listed(**values: object) -> list[list]:
    """The values of parameters that must be lists, as such.

    Raises:
        ConfigError: one of them is a single value, which a string is too, or is empty.
    """
    for name, value in values.items():
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable) or not (found := list(value)):
            raise ConfigError(f"{name}: must be a list of one or more values (got {value!r})")
        values[name] = found
    return list(values.values())


def sweep(
    configs: Sequence[Config], *, root: str | Path | None = None, jobs: int | None = None, show: bool = True
) -> list[Run]:
    """All runs of the configurations, in their order; finished ones are read back, begun ones resumed.

    SimCLR weights that they start from and that are not there are pretrained first, one after the other.

    Args:
        configs: e.g. from :func:`grid`.
        root: the folder of runs; None takes :func:`emlc_lib.experiments.runs.runs_root`.
        jobs: processes, each with its share of the cores; None takes one per core on a CPU, and one on CUDA.
        show: whether to show progress over the runs.

    Raises:
        ConfigError: jobs is no positive integer.
    """
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise ConfigError(f"jobs: must be None or a positive integer (got {jobs!r})")
    on_cuda = any(config.device.startswith("cuda") for config in configs)
    jobs = min(jobs or (1 if on_cuda else cores()), len(configs))
    for config in configs:
        if config.awaits_weights:
            provide(config.dataset, config.model, config.device, show=show)
    missing = [config for config in configs if not is_finished(config, root)]
    if jobs == 1:
        for config in progress(missing, total=len(missing), desc="runs", show=show):
            run(config, root=root, show=show)
    elif missing:
        threads = max(1, cores() // jobs)
        work = (delayed(_one)(config, root, threads) for config in missing)
        finished = Parallel(n_jobs=jobs, return_as="generator_unordered")(work)
        for _ in progress(finished, total=len(missing), desc="runs", show=show):
            pass
    return [run(config, root=root, show=False) for config in configs]


def _one(config: Config, root: str | Path | None, threads: int) -> str:
    torch.set_num_threads(threads)
    return run(config, root=root, show=False).config.name


def add_grid_arguments(parser: argparse.ArgumentParser) -> None:
    """The parameters of :func:`grid` as options of a command line, for :func:`grid_from`."""
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--noise", nargs="+", default=["symmetric:0.9"], help="e.g. symmetric:0.9 asymmetric:0.4")
    parser.add_argument("--method", nargs="+", default=["emlc", "cross_entropy", "clean_only"])
    parser.add_argument("--k", nargs="+", type=int, default=[1])
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--options", type=json.loads, default={}, help='JSON of further parameters: {"lr": 0.1}')


def grid_from(args: argparse.Namespace, **common) -> list[Config]:
    """:func:`grid` of what the command line says, and of further parameters that are not its to say.

    Raises:
        ConfigError: any value that is not allowed.
    """
    check_options(args.options, ["noise", "noise_type", "method", "k", "seed", *common])
    common = {"dataset": args.dataset, "preset": args.preset} | args.options | common
    return grid(args.noise, args.method, args.k, args.seed, **common)


def check_options(options: object, own: Sequence[str]) -> None:
    """Raises a ConfigError if ``--options`` is no JSON object or has a parameter that has an option of its own."""
    if not isinstance(options, dict) or options.keys() & set(own):
        names = f"{', '.join(own[:-1])} and {own[-1]}"
        raise ConfigError(f"--options: a JSON object without {names}, which have their own")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Runs a grid of configurations and prints its table.")
    add_grid_arguments(parser)
    parser.add_argument("--jobs", type=int, help="parallel processes")
    parser.add_argument("--runs", help="the folder of runs")
    parser.add_argument("--csv", type=Path, help="write one row per run here")
    args = parser.parse_args(arguments)
    try:
        configs = grid_from(args)
        runs = sweep(configs, root=args.runs, jobs=args.jobs)
    except (ConfigError, DataUnavailable, CheckpointError, FloatingPointError) as error:
        parser.error(str(error))
    if args.csv:
        write_atomically(args.csv, lambda path: run_table(runs).to_csv(path, index=False))
    print(accuracy_table(runs).to_string(index=False))


if __name__ == "__main__":
    main()
