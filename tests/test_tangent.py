"""The recorded forward pass is the model's own, and its tangents are those of torch.func.jvp."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp

from emlc_lib.meta_gradient import batch_statistics_only, parameters_of
from emlc_lib.models import build_classifier
from emlc_lib.tangent import TapedForward, UnsupportedModel

MODELS = [("small_cnn", 1, 8), ("resnet_narrow", 3, 16), ("resnet34", 3, 8), ("resnet50", 3, 8)]
MODELS += [("resnet50_imagenet", 3, 64)]  # with max pooling


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
