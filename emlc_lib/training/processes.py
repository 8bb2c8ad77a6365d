"""Which trainings several processes can share."""

import torch

from ..methods import METHODS
from ..runtime.parameters import ConfigError
from .config import Config


def check_processes(config: Config, processes: int, *, local: int | None = None) -> None:
    """Raises a ConfigError unless so many processes can train this configuration together.

    Args:
        processes: W, of all machines together.
        local: those on this machine; None takes all.
    """
    if not isinstance(processes, int) or isinstance(processes, bool) or processes < 1:
        raise ConfigError(f"processes: must be a positive integer (got {processes!r})")
    if processes == 1:
        return
    if not METHODS[config.method].parallel:
        parallel = ", ".join(name for name, method in METHODS.items() if method.parallel)
        raise ConfigError(f"processes: method {config.method} trains in one; several are for {parallel}")
    if getattr(config, "cuda_graph", False):
        raise ConfigError("cuda_graph: is for one process; gradients are averaged outside of graphs")
    sizes = {name: getattr(config, name) for name in ("batch_size", "clean_batch_size")}
    whole_set = config.method == "clean_only" or config.start_steps > 0
    if whole_set and config.n_clean is not None and config.n_clean < config.batch_size:
        sizes["n_clean"] = config.n_clean  # then this is a batch
    for name, size in sizes.items():
        if size % processes:
            raise ConfigError(f"{name}: {size} cannot be shared equally by {processes} processes")
    if config.device.startswith("cuda"):
        devices = torch.cuda.device_count()
        if config.device != "cuda":
            raise ConfigError(f"device: each process has a GPU of its own; give cuda (got {config.device!r})")
        if (local or processes) > devices:
            raise ConfigError(f"processes: {local or processes} need a GPU each; this machine has {devices}")
