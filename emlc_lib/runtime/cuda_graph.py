"""A training step as one CUDA graph: hundreds of kernel launches become one.

A graph replays kernels at the addresses that they had when it was captured, and no Python. So a step is captured
as a function of its draw alone: batches, labels and learning rates are copied into tensors that stay, and what it
changes (weights, statistics, momenta) is changed in place. Capturing runs nothing. Before replays are trusted they
have to give what the step itself gives, from the same state, on two draws; if they do not, or if the capture
fails, the training goes on without a graph and says so.

The first steps are run on the stream that is captured later: autograd would wait for tensors that it made on
another one in the middle of the capture, which CUDA refuses.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

Draw = TypeVar("Draw")

Log = dict[str, Tensor]

# Steps before the capture: kernels are chosen and momenta allocated in the first.
WARM_UP = 3

# Draws on which replays are compared with the step.
CHECKS = 2

# Relative difference of the change of each kind of state, and of the log. On a GPU two runs of one step differ by
# the order of their sums, far less than this even in bfloat16. A draw that is not looked at, or a part of the
# state that is missing, is of order one.
TOLERANCE = 1e-2


def state_of(networks: Mapping[str, nn.Module], optimisers: Iterable[torch.optim.Optimizer]) -> list[list[Tensor]]:
    """All tensors that training changes in place, by kind: weights, running statistics, counters and momenta."""
    weights = [parameter for network in networks.values() for parameter in network.parameters()]
    buffers = [buffer for network in networks.values() for buffer in network.buffers()]
    statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
    counters = [buffer for buffer in buffers if not buffer.is_floating_point()]
    states = [state for optimiser in optimisers for state in optimiser.state.values()]
    momenta = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    return [weights, statistics, counters, momenta]


class CudaStream:
    """All that needs a GPU: a side stream, on which steps are run and then captured."""

    def __init__(self, device: str):
        self._stream = torch.cuda.Stream(device)

    def run(self, function: Callable[[], Log]) -> Log:
        """The function's result, computed on the stream; what is on the current one comes before and after."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = function()
        current.wait_stream(self._stream)
        return result

    def capture(self, function: Callable[[], Log]) -> tuple[Callable[[], None], Log]:
        """What replays the function, and the tensors in which each replay leaves its result."""
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as the writer of checkpoints, may use the device meanwhile.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            result = function()
        return graph.replay, result


class CapturedStep:
    """A step that is replayed as a graph once that has been seen to give the same.

    Args:
        step: of a draw: a named tuple (nested, if need be) of tensors, floats and None, of the same shapes every
            time; floats reach it as tensors of no dimension. It returns tensors by name, never looks at
            the value of a tensor, and depends on nothing else that changes on the host.
        state: returns all tensors that the step changes, always the same ones from the second step on, by kind
            (:func:`state_of`): weights move so little that among statistics their error would not be seen.
        stream: runs and captures; see :class:`CudaStream`.
    """

    def __init__(self, step: Callable[[Draw], Log], state: Callable[[], list[list[Tensor]]], stream: CudaStream):
        self._step, self._state, self._stream = step, state, stream
        self._like = state()[0][0]
        self._taken = 0
        self._replay: Callable[[], None] | None = None
        self._failed = False

    @property
    def replays(self) -> bool:
        """Whether steps are replayed from now on."""
        return self._taken >= WARM_UP + CHECKS and not self._failed

    def __call__(self, draw: Draw) -> Log:
        self._taken += 1
        leaves, form = tree_flatten(draw)
        number = {"dtype": self._like.dtype, "device": self._like.device}
        leaves = [torch.full((), x, **number) if isinstance(x, float) else x for x in leaves]
        if self._failed or self._taken <= WARM_UP:
            return self._stream.run(lambda: self._step(tree_unflatten(leaves, form)))
        if self._taken <= WARM_UP + CHECKS:
            return self._stream.run(lambda: self._checked(leaves, form))
        return self._stream.run(lambda: self._replayed(leaves))

    def _checked(self, leaves: list[Tensor | None], form: TreeSpec) -> Log:
        """The step itself; and a replay from the same state, whose own result is thrown away."""
        before = self._copy()
        expected = self._step(tree_unflatten(leaves, form))
        after = self._copy()
        _put(before, self._state())
        try:
            if self._replay is None:
                self._capture(leaves, form)
            found = self._replayed(leaves)
            nothing = [torch.zeros_like(value) for value in expected.values()]
            sides = [(found.values(), expected.values(), nothing), *zip(self._state(), after, before, strict=True)]
            error = torch.stack([_error(*side) for side in sides if len(side[0])]).max().item()
            if not error <= TOLERANCE:
                self._give_up(f"a replay differs from the step by {error:.1e} of its length")
        except RuntimeError as problem:
            self._give_up(f"the capture failed ({str(problem).partition(chr(10))[0]})")
        _put(after, self._state())
        return expected

    def _capture(self, leaves: list[Tensor | None], form: TreeSpec) -> None:
        self._inputs = [x if x is None else x.clone() for x in leaves]
        static = tree_unflatten(self._inputs, form)
        self._replay, self._outputs = self._stream.capture(lambda: self._step(static))

    def _replayed(self, leaves: list[Tensor | None]) -> Log:
        for kept, value in zip(self._inputs, leaves, strict=True):
            if value is not None:
                kept.copy_(value)
        self._replay()
        return {name: value.clone() for name, value in self._outputs.items()}

    def _copy(self) -> list[list[Tensor]]:
        return [[value.detach().clone() for value in kind] for kind in self._state()]

    def _give_up(self, why: str) -> None:
        self._failed, self._replay = True, None
        print(f"cuda_graph: {why}; the training goes on without a graph", file=sys.stderr, flush=True)


@torch.no_grad()
def _put(values: list[list[Tensor]], into: list[list[Tensor]]) -> None:
    for target, value in zip(chain(*into), chain(*values), strict=True):
        target.copy_(value)


def _error(found: Iterable[Tensor], expected: Iterable[Tensor], before: Iterable[Tensor]) -> Tensor:
    """The difference from what is expected over the change to it; what neither changes nor differs has none."""
    difference = _distance(found, expected)
    return torch.where(difference == 0, difference, difference / _distance(expected, before))


def _distance(a: Iterable[Tensor], b: Iterable[Tensor]) -> Tensor:
    """The length of a - b, of all tensors together."""
    return torch.stack([(x.double() - y.double()).norm() for x, y in zip(a, b, strict=True)]).norm()
