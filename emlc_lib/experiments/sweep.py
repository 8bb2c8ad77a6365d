"""Many runs, in parallel processes: ``emlc sweep --help``."""

import gc
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from joblib import Parallel, delayed

from ..data.prepare import check_data
from ..methods import METHODS
from ..runtime.execution import cores
from ..runtime.files import writable_folder
from ..runtime.parameters import ConfigError
from ..runtime.places import runs_root
from ..runtime.progress import progress
from ..training.config import Config
from ..training.presets import make_config
from .pretraining import provide
from .runs import Run, is_finished, run


def product(**parameters) -> list[Config]:
    """Every combination of the values of parameters, of which each may be a list; see :func:`grid`.

    A noise is a rate, or has its type with it, as ``asymmetric:0.4``. Where no method is named, they are EMLC and
    the two kinds of training without correction.

    Raises:
        ConfigError: any value that is not allowed; before anything runs.
    """
    for name in ("noises", "methods", "ks", "seeds"):
        if name in parameters:
            raise ConfigError(f"{name}: is not a parameter; {name[:-1]} takes a list")
    values = {"noise": None, "method": ["emlc", "cross_entropy", "clean_only"], "k": 1, "seed": 0} | parameters
    values = {name: value if isinstance(value, list) else [value] for name, value in values.items()}
    axes = [values.pop(name) for name in ("noise", "method", "k", "seed")]
    listed(**values)
    common = [dict(zip(values, some, strict=True)) for some in itertools.product(*values.values())]
    configs = {config.name: config for some in common for config in grid(*axes, **some)}
    return list(configs.values())


def grid(
    noises: Iterable, methods: Iterable[str], ks: Iterable[int], seeds: Iterable[int], **common
) -> list[Config]:
    """Every combination as a configuration; not all methods look k steps ahead, or at the noise.

    Args:
        noises: e.g. ``symmetric:0.9``; ``real`` for Clothing1M; a rate alone; None for the default.
        methods, ks, seeds: values of those parameters.
        common: further parameters of :func:`emlc_lib.training.presets.make_config`.

    Raises:
        ConfigError: any value that is not allowed; before anything runs.
    """
    noises, methods, ks, seeds = listed(noises=noises, methods=methods, ks=ks, seeds=seeds)
    configs: dict[str, Config] = {}
    for seed, noise, method in itertools.product(seeds, noises, methods):
        values = common | noise_parameters(noise)
        known = METHODS.get(str(method), METHODS["emlc"])  # make_config refuses what is unknown
        for k in ks if known.looks_ahead else [None]:
            config = make_config(method=method, k=k, seed=seed, **values)
            configs.setdefault(config.name, config)  # what does not see the noise is one run for all
    return list(configs.values())


def noise_parameters(noise: object) -> dict[str, object]:
    """``noise_type`` and ``noise``, as far as they are in an element of the ``noises`` of :func:`grid`."""
    if noise is None or noise == "real":
        return {} if noise is None else {"noise_type": noise}
    kind, typed, rate = str(noise).rpartition(":")
    try:
        return ({"noise_type": kind} if typed else {}) | {"noise": float(rate)}
    except ValueError:
        raise ConfigError(f"noise: {noise!r} is neither a rate nor of the form symmetric:0.9") from None


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
        ConfigError: jobs is no positive integer, or a configuration asks for what its data do not have: before
            anything is trained.
    """
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise ConfigError(f"jobs: must be None or a positive integer (got {jobs!r})")
    on_cuda = any(config.device.startswith("cuda") for config in configs)
    jobs = min(jobs or (1 if on_cuda else cores()), len(configs))
    missing = [config for config in configs if not is_finished(config, root)]
    check_data(missing)
    if missing:
        writable_folder(runs_root(root), "runs")
    for config in configs:
        if config.awaits_weights:
            provide(config.dataset, config.model, config.device, show=show)
    missing = [config for config in missing if not is_finished(config, root)]  # their names are only sure now
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
    name = run(config, root=root, show=False).config.name
    gc.collect()  # a method and its batches know each other, and would stay on the device beside the next one's
    return name
