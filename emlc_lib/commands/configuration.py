"""The parameters of a run, as a command's help lists them."""

import inspect
from collections.abc import Iterator

from ..data.datasets import DATASETS
from ..methods import METHODS, MethodParameters
from ..training.config import Config
from ..training.presets import PRESETS, make_config
from .parameters import Rows, allowed

PROCESSES = (
    "processes",
    "integer, >= 1; default 1. How many on this machine train together, each on CUDA with a GPU of its own",
)


def run_parameters() -> Iterator[tuple[str, Rows]]:
    """Those of all runs, and of each method its own; see :class:`emlc_lib.commands.parameters.Described`."""
    order = list(dict.fromkeys(["method", "dataset", "preset", *Config.model_fields]))
    yield "Parameters of every run", [(name, _line(name, Config)) for name in order]
    groups: dict[tuple[str, ...], Rows] = {}
    seen = set(MethodParameters.model_fields)
    for method in METHODS.values():
        for name in method.Parameters.model_fields:
            owners = tuple(other.name for other in METHODS.values() if name in other.Parameters.model_fields)
            if name not in seen:
                groups.setdefault(owners, []).append((name, _line(name, method.Parameters, owners)))
            seen.add(name)
    for owners, rows in groups.items():
        yield f"Parameters of {', '.join(owners)}", rows


def _line(name: str, cls: type[MethodParameters], methods: tuple[str, ...] = ()) -> str:
    field = cls.model_fields[name]
    usual = inspect.signature(make_config).parameters
    default = [str(usual[name].default)] if name in usual else []
    default += [] if name in usual or field.is_required() else [str(field.default)]
    own = [(preset, values) for method in methods for preset, values in METHODS[method].presets.items()]
    default += [f"{values[name]} ({preset})" for preset, values in [*PRESETS.items(), *own] if name in values]
    return allowed(
        field, choices={"method": METHODS, "dataset": DATASETS}.get(name, ()), default="; ".join(default)
    )
