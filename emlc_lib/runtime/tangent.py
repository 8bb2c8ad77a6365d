"""Forward-mode differentiation that reuses the activations of a training forward pass.

``torch.func.jvp`` evaluates a network again to get its tangents. Training has just evaluated it on the same
batch at the same parameters, so :class:`TapedForward` records what the tangents need in the training pass
itself and later propagates tangents alone: two thirds of the convolutions. Where that much memory is not to be
held until then, both are evaluated together, layer by layer, which moves less memory than ``torch.func.jvp``.
The result is the same Jacobian-vector product; the tests hold it against that one.

In bfloat16 passes the derivative is taken at the very activations that the student was trained on, and tangents
between layers are rounded to bfloat16, too; batch statistics, linear layers and the sums of a convolution are in
float32. Nearly all of the error of v_i comes from the activations and from g_w: rounding tangents alone leaves a
cosine of 0.9999 even in an untrained ResNet-34, whose activations bend it to 0.8. The tests bound both.
"""

import operator
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn import functional as F


class UnsupportedModel(TypeError):
    """The model has an operation without a tangent rule here; ``torch.func.jvp`` still handles it."""


class Tape(NamedTuple):
    """What one recorded forward pass leaves for tangents, detached from autograd.

    Attributes:
        output: the model's output.
        values: activations by graph node.
        statistics: batch mean and inverse standard deviation by batch norm layer, each (channels,).
    """

    output: Tensor
    values: dict[str, Tensor]
    statistics: dict[str, tuple[Tensor, Tensor]]


_ADDITIONS = (operator.add, operator.iadd, torch.add)


class TapedForward:
    """A model whose training-mode forward pass can be recorded and then differentiated forwards.

    Args:
        model: built from convolutions, linear layers, 2-d batch norm, ReLU, pooling, flattening and
            additions, and traceable by ``torch.fx``; all ResNets are. It is used as it is, not copied.
        context: makes the context of every recorded pass, such as autocast's.

    Raises:
        UnsupportedModel: the model has another operation.
    """

    def __init__(self, model: nn.Module, context: Callable[[], AbstractContextManager] = nullcontext):
        self._context = context
        try:
            self._traced = fx.symbolic_trace(model)
        except Exception as error:
            raise UnsupportedModel(f"torch.fx cannot trace {type(model).__name__}: {error}") from error
        self._modules = dict(self._traced.named_modules())
        self._nodes = list(self._traced.graph.nodes)
        self._kept: set[str] = set()
        last_use: dict[fx.Node, fx.Node] = {}
        for node in self._nodes:
            self._check(node)
            last_use |= dict.fromkeys(node.all_input_nodes, node)
        self._dead = {node: [used for used, by in last_use.items() if by is node] for node in self._nodes}

    def _check(self, node: fx.Node) -> None:
        if node.op == "call_module":
            module = self._modules[node.target]
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
                    raise UnsupportedModel(f"{node.target}: padding mode {module.padding_mode}")
                if isinstance(module, nn.BatchNorm2d) and not module.affine:
                    raise UnsupportedModel(f"{node.target}: batch norm without weight and bias")
                self._kept.add(node.args[0].name)
                return
            if isinstance(module, nn.ReLU):
                self._kept.add(node.name)
                return
            if isinstance(module, nn.MaxPool2d):
                self._kept.add(node.args[0].name)
                return
            if isinstance(module, nn.AdaptiveAvgPool2d | nn.AvgPool2d | nn.Flatten | nn.Identity):
                return
            raise UnsupportedModel(f"{node.target}: no tangent rule for {type(module).__name__}")
        if node.op == "call_function" and node.target not in (*_ADDITIONS, torch.flatten):
            raise UnsupportedModel(f"{node.name}: no tangent rule for {node.target}")
        if node.op not in ("placeholder", "call_function", "output"):
            raise UnsupportedModel(f"{node.name}: no tangent rule for {node.op} {node.target}")

    def __call__(self, x: Tensor) -> tuple[Tensor, Tape]:
        """The training-mode output, in the number format of x and with its graph, and the tape for :meth:`jvp`."""
        recorder = _Recorder(self._traced)
        with self._context():
            output = recorder.run(x).to(x.dtype)
        values = {name: recorder.kept[name].detach() for name in self._kept}
        return output, Tape(output.detach(), values, recorder.statistics)

    @torch.no_grad()
    def jvp(self, tape: Tape, params: dict[str, Tensor], direction: dict[str, Tensor]) -> Tensor:
        """The tangent of the output, J(params) direction, at the recorded batch; the shape of the output.

        Args:
            tape: from a call at the same parameter values.
            params: the parameters *of that call* (the model itself may have moved on since), by name.
            direction: a vector of the same names and shapes.
        """
        env: dict[str, Tensor | None] = {}
        for node in self._nodes[:-1]:
            env[node.name] = self._tangent(node, env, tape, params, direction)
            for dead in self._dead[node]:
                del env[dead.name]
        return env[self._nodes[-1].args[0].name]

    @torch.no_grad()
    def dual(self, params: dict[str, Tensor], x: Tensor, direction: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The training-mode output at any parameters, and its tangent, layer by layer: nothing is held.

        Running statistics are left alone.

        Args:
            params, direction: by name. x: the batch.
        """
        recorder, env = _Recorder(self._traced, params), {}
        tape = Tape(x, recorder.kept, recorder.statistics)
        for node in self._nodes[:-1]:
            if node.op == "placeholder":
                recorder.env[node] = recorder.kept[node.name] = x
            else:
                with self._context():
                    recorder.env[node] = recorder.run_node(node)
            env[node.name] = self._tangent(node, env, tape, params, direction)
            for dead in self._dead[node]:
                del env[dead.name], recorder.env[dead], recorder.kept[dead.name]
        last = self._nodes[-1].args[0].name
        return recorder.kept[last].to(x.dtype), env[last]

    def log_prob_jvp(self, student: nn.Module, step, direction: dict[str, Tensor]) -> Tensor:
        """What :func:`emlc_lib.core.meta_gradient.log_prob_jvp` gives, by the tape of the step if it has one.

        Args:
            student: the recorded model, for the other's signature.
            step: its parameters, batch and tape.
            direction: by name.
        """
        if step.tape is None:
            output, tangent = self.dual(step.params, step.x, direction)
        else:
            output, tangent = step.tape.output, self.jvp(step.tape, step.params, direction)
        # The Jacobian of log softmax: subtract each row's mean tangent under p.
        return tangent - (output.softmax(1) * tangent).sum(1, keepdim=True)

    def _tangent(self, node, env, tape, params, direction) -> Tensor | None:
        if node.op == "placeholder":
            return None  # the input is constant: a zero tangent
        first, *rest = node.args
        if node.op == "call_module":
            return self._module_tangent(node, env[first.name], tape, params, direction)
        if node.target in _ADDITIONS:
            return env[first.name] + env[rest[0].name]
        return torch.flatten(env[first.name], *rest, **node.kwargs)

    def _module_tangent(self, node, dx, tape, params, direction) -> Tensor:
        module, name = self._modules[node.target], node.target
        if isinstance(module, nn.ReLU):
            # The derivative is its own transpose, so the fused backward kernel serves.
            y = tape.values[node.name]
            return torch.ops.aten.threshold_backward(dx.to(y.dtype), y, 0)
        if isinstance(module, nn.MaxPool2d):
            return _max_pool_tangent(tape.values[node.args[0].name], dx, module)
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            return dx if dx is None else module(dx)  # linear and without parameters
        x = tape.values[node.args[0].name]
        weight, d_weight = params[f"{name}.weight"], direction[f"{name}.weight"]
        d_bias = direction[f"{name}.bias"] if module.bias is not None else None
        if isinstance(module, nn.BatchNorm2d):
            dx = dx.to(x.dtype)
            return _batch_norm_tangent(x, dx, weight, d_weight, d_bias, *tape.statistics[name], module.eps)
        if isinstance(module, nn.Linear):
            out = F.linear(x.to(weight.dtype), d_weight, d_bias)
            return out if dx is None else out + F.linear(dx.to(weight.dtype), weight)
        rest = (module.stride, module.padding, module.dilation, module.groups)
        out = F.conv2d(x, d_weight.to(x.dtype), None if d_bias is None else d_bias.to(x.dtype), *rest)
        return out if dx is None else out.add_(F.conv2d(dx.to(x.dtype), weight.to(x.dtype), None, *rest))


def _max_pool_tangent(x: Tensor, dx: Tensor | None, pool: nn.MaxPool2d) -> Tensor | None:
    # The tangent of a maximum is that of the pixel which is the maximum.
    if dx is None:
        return None
    _, index = F.max_pool2d(
        x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )
    return dx.flatten(2).gather(2, index.flatten(2)).view_as(index)


def _batch_norm_tangent(x, dx, weight, d_weight, d_bias, mean, inv_std, eps) -> Tensor:
    # x_hat = (x - mean) * inv_std has the symmetric Jacobian
    #   dx_hat = inv_std * (dx - mean(dx) - x_hat * mean(x_hat * dx)),
    # so the fused backward kernel for the input computes weight * dx_hat when it is given the tangent dx.
    tangent, _, _ = torch.ops.aten.native_batch_norm_backward(
        dx, x, weight, None, None, mean, inv_std, True, eps, [True, False, False]
    )
    if x.dtype != weight.dtype:  # in one kernel, which computes in float32
        return tangent.add_(torch.native_batch_norm(x, d_weight, d_bias, mean, inv_std**-2, False, 0.0, 0.0)[0])
    scale = d_weight * inv_std
    shift = d_bias - scale * mean
    return tangent.addcmul_(x, scale[:, None, None]).add_(shift[:, None, None])


class _Recorder(fx.Interpreter):
    """Runs a traced model and keeps every value and its batch norms' statistics.

    At its own parameters it counts batches, as training does; at others it does not.
    """

    def __init__(self, traced: fx.GraphModule, params: dict[str, Tensor] | None = None):
        super().__init__(traced, garbage_collect_values=False)
        self._params = params
        self.kept: dict[str, Tensor] = {}
        self.statistics: dict[str, tuple[Tensor, Tensor]] = {}

    def run_node(self, n: fx.Node):
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.kept[n.name] = value
        return value

    def call_module(self, target, args, kwargs):
        module = self.submodules[target]
        own = dict(module.named_parameters(recurse=False))
        if self._params is not None:
            own = {name: self._params[f"{target}.{name}"] for name in own}
        if not isinstance(module, nn.BatchNorm2d):
            return module(*args) if self._params is None else functional_call(module, own, args)
        # The functional form returns the batch statistics that the module computes and throws away.
        mean = var = None
        if module.track_running_stats and self._params is None:
            module.num_batches_tracked.add_(1)
            mean, var = module.running_mean, module.running_var
        output, batch_mean, batch_inv_std = torch.native_batch_norm(
            args[0], own["weight"], own["bias"], mean, var, True, module.momentum, module.eps
        )
        self.statistics[target] = (batch_mean.detach(), batch_inv_std.detach())
        return output
