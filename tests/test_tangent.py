"""The recorded forward pass is the model's own, and its tangents are those of torch.func.jvp."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn import functional as F

from emlc_lib import make_config, prepare
from emlc_lib.core.meta_gradient import batch_statistics_only, parameters_of
from emlc_lib.data.batches import Batches
from emlc_lib.networks.backbones import build_classifier
from emlc_lib.runtime.tangent import TapedForward, UnsupportedModel
from emlc_lib.training.start import initial_networks

MODELS = [("small_cnn", 1, 8), ("resnet_narrow", 3, 16), ("resnet34", 3, 8), ("resnet50", 3, 8)]
MODELS += [("resnet_small", 3, 17), ("resnet50_imagenet", 3, 64)]  # with max pooling


@pytest.mark.parametrize(("name", "channels", "side"), MODELS)
def test_tangent_of_every_backbone(name, channels, side):
    model = build_classifier(name, 5, channels, torch.Generator().manual_seed(0)).double().train()
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, channels, side, side, generator=generator, dtype=torch.float64)
    direction = {
        n: torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in model.named_parameters()
    }
    taped = TapedForward(model)
    output, tape = taped(x)
    assert torch.equal(output, twin(x))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))
    with batch_statistics_only(twin):
        _, expected = jvp(lambda p: functional_call(twin, p, (x,)), (parameters_of(twin),), (direction,))
    value = taped.jvp(tape, parameters_of(model), direction)
    # Up to 50 layers of float64 sums in another order: 1e-14 was measured, a missing term is of order one.
    assert ((value - expected).norm() / expected.norm()).item() <= 1e-11


@pytest.mark.parametrize(("name", "channels", "side"), MODELS[:3])
def test_both_in_one_pass_at_parameters_that_the_model_has_left(name, channels, side):
    """As with k > 1: the model has moved on since; its running statistics and weights stay as they are."""
    model = build_classifier(name, 5, channels, torch.Generator().manual_seed(0)).double().train()
    before = copy.deepcopy(model.state_dict())
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, channels, side, side, generator=generator, dtype=torch.float64)
    params, direction = (
        {n: torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in model.named_parameters()}
        for _ in range(2)
    )
    taped = TapedForward(model)
    output, tangent = taped.dual(params, x, direction)
    with batch_statistics_only(model):
        primal, expected = jvp(lambda p: functional_call(model, p, (x,)), (params,), (direction,))
    assert not output.requires_grad
    assert not tangent.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for value, reference in ((output, primal), (tangent, expected)):
        # As above. With random weights of size one instead of He's, cancellation costs two digits more.
        assert ((value - reference).norm() / reference.norm()).item() <= 1e-9


def cosine(a, b):
    a, b = a.double().flatten(), b.double().flatten()
    return (a @ b / (a.norm() * b.norm())).item()


def bfloat16_passes():
    return torch.autocast("cpu", torch.bfloat16)


def rounded(model, x, direction):
    """J direction from bfloat16 passes, from their activations with nothing else rounded, and in float32."""
    params = parameters_of(model)
    with batch_statistics_only(model):
        plain, taped = TapedForward(model), TapedForward(model, bfloat16_passes)
        (_, exact), (_, tape) = plain(x), taped(x)
        output, tangent = taped.dual(params, x, direction)
    assert tape.output.dtype == torch.float32
    kept = [value.dtype for name, value in tape.values.items() if value is not x]
    assert kept.count(torch.bfloat16) > 0.9 * len(kept)
    unrounded = tape._replace(values={name: value.float() for name, value in tape.values.items()})
    assert torch.equal(output, tape.output)
    assert torch.equal(tangent, taped.jvp(tape, params, direction))
    tangents = [(taped, tape), (plain, unrounded), (plain, exact)]
    return [recorder.jvp(record, params, direction) for recorder, record in tangents]


def gradient(model, x, labels):
    params = dict(model.named_parameters())
    return dict(zip(params, torch.autograd.grad(F.cross_entropy(model(x), labels), params.values()), strict=True))


def test_rounding_tangents_to_bfloat16_is_harmless_even_in_an_untrained_resnet34():
    """Measured: 0.9999. What turns the tangents of this network to a cosine of 0.8 are its rounded activations."""
    generator = torch.Generator().manual_seed(0)
    model = build_classifier("resnet34", 10, 3, generator).to(memory_format=torch.channels_last).train()
    x, y = torch.randn(8, 3, 32, 32, generator=generator), torch.randint(10, (8,), generator=generator)
    value, unrounded, _ = rounded(model, x.contiguous(memory_format=torch.channels_last), gradient(model, x, y))
    assert value.dtype == torch.float32
    assert 0.999 <= cosine(value, unrounded) < 1
    assert abs(value.norm() / unrounded.norm() - 1).item() <= 0.01  # measured: 0.003


@pytest.mark.cifar10
def test_bfloat16_tangents_on_a_trained_start():
    """The narrow ResNet with the shipped weights on CIFAR-10. Measured: 0.99999 or more."""
    config = make_config(
        dataset="cifar10", preset="quick", device="cpu", start="simclr", start_steps=0, n_noisy=1280,
        batch_size=128, clean_batch_size=32,
    )  # fmt: skip
    batches = Batches(config, prepare(config))
    model, _ = initial_networks(config, batches, teacher=False)
    clean = batches.clean(0, 32)
    x, direction = batches.noisy(0).x, gradient(model.train(), clean.x, clean.labels)
    value, unrounded, exact = rounded(model, x, direction)
    assert 0.9999 <= cosine(value, unrounded) < 1
    assert 0.999 <= cosine(value, exact) < 1
    assert abs(value.norm() / exact.norm() - 1).item() <= 0.01  # measured: 0.0001


def test_gradients_of_the_recorded_pass_are_the_models():
    model = build_classifier("resnet_narrow", 5, 3, torch.Generator().manual_seed(0)).train()
    twin = copy.deepcopy(model)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    TapedForward(model)(x)[0].square().sum().backward()
    twin(x).square().sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding_mode="reflect")),
        nn.Sequential(nn.BatchNorm2d(3, affine=False)),
    ],
)
def test_unsupported_models_are_refused(model):
    with pytest.raises(UnsupportedModel):
        TapedForward(model)


def test_control_flow_is_refused():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedModel, match="cannot trace"):
        TapedForward(Branching())
