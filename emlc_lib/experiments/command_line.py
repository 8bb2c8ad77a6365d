"""The papermill command that makes a run."""

import json
from pathlib import Path
from typing import Any

from ..data.parameters import RATED
from ..methods import METHODS
from ..training.config import Config
from ..training.presets import make_config
from ..training.run_digest import NOT_COUNTED, switched_off


def command(config: Config, processes: int = 1) -> str:
    """The papermill command that makes this run, with so many processes."""
    shown = ["dataset", "noise_type", "noise", "method", "k", "seed", "preset"]
    if not METHODS[config.method].looks_ahead:
        shown.remove("k")
    if config.noise_type not in RATED:
        shown.remove("noise")
    notebook = config.spec.notebook
    # The notebook of Clothing1M has no other data set.
    needed = shown if notebook == "03_cifar" else [n for n in shown if n not in ("dataset", "noise_type")]
    text = [f"-p {name} {getattr(config, name)}" for name in needed]
    usual = make_config(
        **{name: getattr(config, name) for name in ("dataset", "method", "preset", "device")}, device_here=False
    )
    said = {*shown, *NOT_COUNTED, "noise_type", "human_labels", "human_key", "noise_file", "noise_sha256"}
    said |= switched_off(config)
    changed = {n: v for n, v in config.model_dump().items() if v != getattr(usual, n) and n not in said}
    if config.preset == "small":  # whose precision depends on the machine
        changed["precision"] = config.precision
    if config.start_weights:
        changed["start_weights"] = f"FILE{Path(config.start_weights).suffix}"
    changed = as_given(config, changed)
    if "epochs" in changed:
        text.append(f"-p epochs {changed.pop('epochs')}")
    if processes > 1:
        text.append(f"-p processes {processes}")
    if config.noise_type == "human":
        text.append(f"-p human_labels FILE.npz -p human_key {config.human_key}")
    if config.noise_type == "file":
        text.append(f"-p noise_file {config.noise_key}")
    if changed:
        text.append(f"-y '{json.dumps({'options': changed})}'")
    return " ".join([f"papermill notebooks/{notebook}.ipynb out.ipynb", *text])


def as_given(config: Config, values: dict[str, Any]) -> dict[str, Any]:
    """Values of a configuration as :func:`make_config` takes them, for which None is the preset's."""
    return values | {n: "all" for n in ("n_clean", "n_noisy") if n in values and getattr(config, n) is None}
