"""Checkpoints and weights as safetensors, with JSON metadata and a checksum."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .files import write_atomically
from .parameters import ConfigError, Expected


class CheckpointError(Expected, RuntimeError):
    """A checkpoint is damaged or belongs to another run. The message says what to do."""


def save_checkpoint(
    path: Path,
    networks: dict[str, nn.Module],
    optimisers: dict[str, torch.optim.Optimizer],
    extra: dict[str, Tensor],
    metadata: dict[str, Any],
) -> None:
    """Writes networks, optimiser momenta, further tensors and JSON metadata to one file, atomically.

    Their SHA-256 goes with them: safetensors itself does not notice a changed bit in a tensor.
    """
    _write(path, _snapshot(networks, optimisers, extra), metadata)


class CheckpointWriter:
    """:func:`save_checkpoint` while the training goes on: the state is copied at once and written in a thread.

    Of one file, that is: the next waits for the last one to be whole. As a context, it ends when that is, too.
    An error of writing is raised by whatever waits for it.
    """

    def __init__(self):
        self._executor = ThreadPoolExecutor(1)
        self._last: Future | None = None

    def save(self, path: Path, networks, optimisers, extra: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Arguments as in :func:`save_checkpoint`."""
        self.wait()
        self._last = self._executor.submit(_write, path, _snapshot(networks, optimisers, extra), metadata)

    def wait(self) -> None:
        """Returns when what was saved is on disk."""
        last, self._last = self._last, None
        if last:
            last.result()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_) -> None:
        try:
            self.wait()
        finally:
            self._executor.shutdown()


def _snapshot(networks, optimisers, extra: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the host, which the next step leaves alone."""
    tensors = {f"extra/{name}": value for name, value in extra.items()}
    for name, network in networks.items():
        tensors |= {f"network/{name}/{key}": value for key, value in network.state_dict().items()}
    for name, optimiser in optimisers.items():
        for index, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                if value is not None:
                    tensors[f"optimiser/{name}/{index}/{key}"] = value
    copy = {"device": "cpu", "copy": True, "memory_format": torch.contiguous_format}
    return {name: value.detach().to(**copy) for name, value in tensors.items()}


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    text = json.dumps(metadata)
    header = {"metadata": text, "sha256": tensors_digest(sorted(tensors.items()), text)}
    write_atomically(path, lambda p: save_file(tensors, p, header))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged or no checkpoint.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text, checksum = header["metadata"], header["sha256"]
        if tensors_digest(sorted(tensors.items()), text) != checksum:
            raise ValueError("its content is not what was written")
        return tensors, json.loads(text)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or no checkpoint ({error}); delete it to start the run over"
        ) from error


def read_own_checkpoint(
    path: Path, config: dict[str, Any], processes: int = 1
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """:func:`read_checkpoint` of a run that depends on these values, which the metadata hold under ``config``.

    Under ``processes`` they hold how many trained together; none is one.

    Raises:
        CheckpointError: the file is damaged, or of another configuration or number of processes; the message lists
            what differs.
    """
    tensors, metadata = read_checkpoint(path)
    saved = metadata["config"]
    differing = sorted(name for name in saved.keys() | config.keys() if saved.get(name) != config.get(name))
    if differing:
        raise CheckpointError(
            f"{path} belongs to another configuration (it differs in {', '.join(differing)}); "
            "use another folder, or delete it to start over"
        )
    before = metadata.get("processes", 1)
    if before != processes:
        raise CheckpointError(
            f"{path} was written with processes={before}, and with {processes} batch norm would see other shares; "
            f"go on with processes={before}, or delete it to start over"
        )
    return tensors, metadata


def restore(
    tensors: dict[str, Tensor],
    networks: dict[str, nn.Module],
    optimisers: dict[str, torch.optim.Optimizer],
) -> None:
    """Puts a checkpoint's tensors into networks and optimisers, strictly.

    Raises:
        ConfigError: the networks have other weights; the message lists what differs.
    """
    for name, network in networks.items():
        load_strictly(network, _under(tensors, f"network/{name}/"), source=f"the checkpoint's {name}")
    for name, optimiser in optimisers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(tensors, f"optimiser/{name}/").items():
            index, field = key.split("/")
            state.setdefault(int(index), {})[field] = value
        groups = optimiser.state_dict()["param_groups"]
        params = [p for group in optimiser.param_groups for p in group["params"]]
        for index, fields in state.items():
            like = params[index]
            # In the layout of the weights, without which fused and foreach updates take a slower path.
            state[index] = {
                field: torch.empty_like(like).copy_(value) if value.shape == like.shape else value
                for field, value in fields.items()
            }
        optimiser.load_state_dict({"state": state, "param_groups": groups})


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def read_npz(path: Path, parameter: str) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` archive by name; nothing in it is unpickled.

    Args:
        path: the file.
        parameter: its name, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is no such archive, or damaged, or has an array of Python objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{parameter}: {path} is not a file")
    try:
        # Of anything else np.load would say that it can be unpickled.
        if not zipfile.is_zipfile(path):
            raise ValueError("no archive")
        # Opened here: np.load would leave a damaged archive open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        if foreign := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{foreign[0]} is no array")
        return arrays
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{parameter}: {path} is not a readable .npz archive ({error})") from error


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as a compressed ``.npz`` archive, atomically; the same arrays give the same bytes."""

    def write(to: Path) -> None:
        with open(to, "wb") as file:  # a name would be given the ending .npz
            np.savez_compressed(file, **arrays)

    write_atomically(path, write)


def save_file(tensors: dict[str, Tensor], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file, and no other: safetensors' own function leaves one beside it if it is killed."""
    Path(path).write_bytes(save(tensors, metadata=metadata))


def save_weights(
    model: nn.Module, path: str | Path, *, metadata: dict[str, str] | None = None, half: bool = False
) -> None:
    """Writes a model's parameters and buffers as safetensors, floating-point ones in 16 bits if ``half``."""
    values = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        values = {name: v.half() if v.is_floating_point() else v for name, v in values.items()}
    save_file(values, path, metadata)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Loads weights that :func:`save_weights` wrote, strictly, in place.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: the file is damaged, or belongs to another model; the message lists what differs.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights: {path} is not a file")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ConfigError(f"weights: {path.name} is damaged or no safetensors file ({error})") from error
    load_strictly(model, weights, source=path.name)


def load_strictly(model: nn.Module, weights: dict[str, Tensor], *, source: str) -> None:
    """Loads a state dict, or raises a ValueError with the keys and shapes that differ, changing nothing."""
    own = model.state_dict()
    problems = [f"missing {name}" for name in own if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in own]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, the model's has {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise ConfigError(f"weights: {source} does not fit this model: {shown}")
    model.load_state_dict(weights)


def tensors_digest(tensors: Iterable[tuple[str, Tensor]], text: str = "") -> str:
    """SHA-256 of a text and of tensors: their names, types, shapes and bytes, in this order."""
    digest = hashlib.sha256(text.encode())
    for name, value in tensors:
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
