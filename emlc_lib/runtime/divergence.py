"""Where a training stops being one: losses, gradients or weights that are infinite or not a number."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .parameters import Expected


class Diverged(Expected, FloatingPointError):
    """A training has left the finite numbers."""


# Steps between checks: each waits for the device once.
CHECK_EVERY = 50


def check_finite(
    log: Sequence[Mapping[str, Tensor]],
    networks: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    *,
    last_step: int,
    kept: str,
    cure: str,
) -> None:
    """Stops a training that has left the finite numbers.

    Looks at the losses of the last steps, and at all weights, running statistics and momenta: a gradient that is
    not finite spoils those before the next loss shows it.

    Args:
        log: the losses of the last steps by name, one entry a step.
        networks, optimisers: as they are after those steps.
        last_step: the last one's number, counted from 0.
        kept: what is left of the training; see :func:`what_is_kept`.
        cure: what to change; see :func:`smaller_rates`.

    Raises:
        Diverged: names the first step, what is not finite there, what is kept, and what helps.
    """
    state = dict(_state(networks, optimisers))
    if all_finite([value for entry in log for value in entry.values()] + list(state.values())):
        return
    step, what = _first_logged(log, last_step) or (last_step, _first(state))
    if step == 0 and what in log[0]:
        cure = "as this is before the first update, look at the images and the initial weights"
    raise Diverged(f"{what} is not finite at step {step}. {kept}. What helps: {cure}.")


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all of their numbers are, asked of each device once: optimisers keep some of theirs on the host."""
    groups: dict[tuple, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            groups.setdefault((tensor.device, tensor.dtype), []).append(tensor.detach())
    return all(bool(torch.stack(_largest(group)).isfinite().all()) for group in groups.values())


def _largest(tensors: list[Tensor]) -> Sequence[Tensor]:
    # A few kernels in place of two for every tensor; the largest absolute value is finite if all are.
    return torch._foreach_norm(tensors, ord=torch.inf)


def what_is_kept(checkpoint: Path | None, epochs: int) -> str:
    """Which checkpoint there is after so many finished epochs."""
    if checkpoint and epochs:
        return f"The checkpoint of epoch {epochs} is kept as it was: {checkpoint}"
    return "No epoch was finished, so there is no checkpoint" if checkpoint else "No checkpoints are kept here"


def smaller_rates(rates: Mapping[str, float], precision: str) -> str:
    """Advice to lower learning rates, which it names with their values, and to compute in float32."""
    text = " or ".join(f"a smaller {name} (now {value:g})" for name, value in rates.items())
    return f"{text}, or precision float32" if precision == "bfloat16" else text


def _state(networks, optimisers) -> Iterator[tuple[str, Tensor]]:
    for name, network in networks.items():
        yield from ((f"the {name}'s {key}", value) for key, value in network.state_dict().items())
    for name, optimiser in optimisers.items():
        for i, state in enumerate(optimiser.state.values()):
            tensors = ((key, value) for key, value in state.items() if isinstance(value, Tensor))
            yield from ((f"{key} {i} of the optimiser {name}", value) for key, value in tensors)


def _first_logged(log: Sequence[Mapping[str, Tensor]], last_step: int) -> tuple[int, str] | None:
    for step, entry in enumerate(log, start=last_step + 1 - len(log)):
        for name, value in entry.items():
            if not all_finite([value]):
                return step, name
    return None


def _first(state: Mapping[str, Tensor]) -> str:
    name = next(name for name, value in state.items() if not all_finite([value]))
    return f"{name}, after the gradient of that step,"
