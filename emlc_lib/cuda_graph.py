"""A training step as one CUDA graph: hundreds of kernel launches become one.

A graph replays kernels on the addresses that they had when it was captured, and no Python. So a step is captured as a
function of its draw alone: batches, labels and learning rates are copied into tensors that stay, and what it changes
(weights, statistics, momenta) is changed in place. Capturing runs nothing. Before replays are trusted they have to give
what the step itself gives, from the same state, on two draws; if they do not, or if the capture fails, the training
goes on without a graph and says so.

The first steps are run on the stream that is captured later: tensors that autograd made on another one would be waited
for in the middle of the capture, which CUDA refuses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

Draw = TypeVar("Draw")
Log = dict[str, Tensor]

# Steps before the capture: kernels are chosen and momenta allocated in the first.
WARM_UP = 3
# Draws on which replays are compared with the step.
CHECKS = 2
# Relative difference of the change of the state, and of the log. On a GPU two runs of one step differ by the order of
# their sums: some 1e-6 in float32, up to 1e-3 in bfloat16, in which one sample in a hundred may change its class. A
# draw that is not looked at, or a missing part of the state, is of order one.
TOLERANCE = 1e-2


class CudaStream:
    """All that needs a GPU: a side stream, on which steps are run and then captured."""

    def __init__(self):
        self._stream = torch.cuda.Stream()

    def run(self, function: Callable[[], Log]) -> Log:
        """The function's result, computed on the stream; what is on the current one comes before and after."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = function()
        torch.cuda.current_stream().wait_stream(self._stream)
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
        step: of a draw, a named tuple (nested, if need be) of tensors, numbers and None, of the same shapes every time.
            It returns tensors by name, and never looks at a tensor's value or at a number on the host but its draw's.
        state: returns all tensors that the step changes, always the same ones from the second step on.
        stream: runs and captures; see :class:`CudaStream`.
    """

    def __init__(self, step: Callable[[Draw], Log], state: Callable[[], Sequence[Tensor]], stream: CudaStream):
        self._step, self._state, self._stream = step, state, stream
        self._taken = 0
        self._replay: Callable[[], None] | None = None
        self._failed = False

    def __call__(self, draw: Draw) -> Log:
        self._taken += 1
        if self._failed or self._taken <= WARM_UP:
            return self._stream.run(lambda: self._step(draw))
        if self._taken <= WARM_UP + CHECKS:
            return self._stream.run(lambda: self._checked(draw))
        return self._stream.run(lambda: self._replayed(draw))

    def _checked(self, draw: Draw) -> Log:
        """The step itself; and a replay from the same state, whose own result is thrown away."""
        before = self._copy()
        expected = self._step(draw)
        after = self._copy()
        _put(before, self._state())
        try:
            if self._replay is None:
                self._capture(draw)
            found = self._replayed(draw)
            changes = _difference(self._state(), after) / _difference(before, after)
            error = max(changes, _difference(list(found.values()), list(expected.values()), relative=True))
            if not error <= TOLERANCE:
                self._give_up(f"a replay differs from the step by {error:.1e} of its length")
        except RuntimeError as problem:
            self._give_up(f"the capture failed ({str(problem).splitlines()[0]})")
        _put(after, self._state())
        return expected

    def _capture(self, draw: Draw) -> None:
        leaves, self._form = tree_flatten(draw)
        like = self._state()[0]
        self._inputs = [
            torch.full((), x, dtype=like.dtype, device=like.device) if isinstance(x, float) else _kept(x)
            for x in leaves
        ]
        static = tree_unflatten(self._inputs, self._form)
        self._replay, self._outputs = self._stream.capture(lambda: self._step(static))

    def _replayed(self, draw: Draw) -> Log:
        for kept, value in zip(self._inputs, tree_flatten(draw)[0], strict=True):
            if isinstance(value, Tensor):
                kept.copy_(value)
            elif isinstance(value, float):
                kept.fill_(value)
        self._replay()
        return {name: value.clone() for name, value in self._outputs.items()}

    def _copy(self) -> list[Tensor]:
        return [value.detach().clone() for value in self._state()]

    def _give_up(self, why: str) -> None:
        self._failed, self._replay = True, None
        print(f"cuda_graph: {why}; the training goes on without a graph", file=sys.stderr, flush=True)


def _kept(value: Tensor | None) -> Tensor | None:
    return value.clone() if isinstance(value, Tensor) else value


@torch.no_grad()
def _put(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    for target, value in zip(into, values, strict=True):
        target.copy_(value)


def _difference(a: Sequence[Tensor], b: Sequence[Tensor], *, relative: bool = False) -> float:
    """The length of a - b, of all tensors together; relative to that of b."""
    pairs = [(x.detach().double(), y.detach().double()) for x, y in zip(a, b, strict=True)]
    length = torch.stack([(x - y).norm() for x, y in pairs]).norm().item()
    return length / torch.stack([y.norm() for _, y in pairs]).norm().item() if relative else length
