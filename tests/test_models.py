"""Networks against formulas written out in NumPy, torchvision's own networks, and counts by hand."""

import numpy as np
import pytest
import torch
from problems import conv_net, teacher_around
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet34, resnet50

from emlc_lib.core.teacher import Classifier, Teacher, build_teacher, initialise
from emlc_lib.networks.backbones import build_classifier
from emlc_lib.runtime.checkpoint import load_strictly, load_weights, save_weights


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(seed=0, n_classes=4, channels=1):
    return build_classifier("small_cnn", n_classes, channels, generator(seed))


def parameter_count(model):
    return sum(p.numel() for p in model.parameters())


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model, before):
    after = model.state_dict()
    return list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)


@pytest.fixture
def teacher():
    return teacher_around(conv_net(0), 1)


@pytest.fixture
def images():
    return torch.randn(7, 2, 6, 6, generator=generator(5), dtype=torch.float64)


GIVEN = torch.tensor([0, 1, 2, 3, 3, 0, 1])


class TestTeacher:
    def test_output_by_hand(self, teacher, images):
        """Figure 3 in NumPy and float64: the same few hundred products in another order, so 1e-13."""
        out = teacher(images, GIVEN)
        weights = {name: value.numpy() for name, value in teacher.state_dict().items()}
        h = teacher.classifier.features(images).detach().numpy()
        for i, label in enumerate(GIVEN.tolist()):
            logits = weights["classifier.head.weight"] @ h[i] + weights["classifier.head.bias"]
            prediction = np.exp(logits) / np.exp(logits).sum()
            joined = np.concatenate([h[i], weights["label_embedding.weight"][label]])
            hidden = np.maximum(weights["gate.0.weight"] @ joined + weights["gate.0.bias"], 0)
            gate_logit = (weights["gate.2.weight"] @ hidden + weights["gate.2.bias"])[0]
            w = 1 / (1 + np.exp(-gate_logit))
            expected = w * np.eye(4)[label] + (1 - w) * prediction
            for value, reference in [
                (out.logits[i], logits),
                (out.gate_logits[i], gate_logit),
                (out.gate[i], w),
                (out.soft_labels[i], expected),
            ]:
                np.testing.assert_allclose(value.detach().numpy(), reference, rtol=1e-13, atol=1e-13)
        assert torch.equal(out.given, GIVEN)

    def test_rows_sum_to_one_and_the_gate_is_a_weight(self, teacher, images):
        out = teacher(100 * images, GIVEN)
        # Four float64 numbers below one.
        torch.testing.assert_close(out.soft_labels.sum(1), torch.ones(7, dtype=torch.float64), rtol=0, atol=1e-14)
        assert (out.soft_labels >= 0).all()
        assert ((out.gate > 0) & (out.gate < 1)).all()
        assert out.gate.shape == out.gate_logits.shape == (7,)

    def test_given_labels_made_from_the_logits(self, teacher, images):
        """As adversarial corruption does: the function sees the logits, outside the graph."""
        seen = []

        def least_likely(logits):
            seen.append(logits)
            return logits.argmin(1)

        out = teacher(images, least_likely)
        assert len(seen) == 1
        assert not seen[0].requires_grad
        assert torch.equal(seen[0], out.logits)
        assert torch.equal(out.given, out.logits.argmin(1))
        direct = teacher(images, out.logits.argmin(1))
        assert torch.equal(out.soft_labels, direct.soft_labels)
        assert torch.equal(out.gate_logits, direct.gate_logits)

    def test_the_gate_depends_on_the_given_label(self, teacher, images):
        first, second = (teacher(images, torch.full((7,), label)) for label in (0, 1))
        assert (first.gate != second.gate).all()
        assert torch.equal(first.logits, second.logits)

    def test_every_parameter_has_a_gradient(self, teacher, images):
        teacher(images, GIVEN).soft_labels[:, 0].sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in teacher.parameters())

    def test_sizes_of_table_4(self):
        """One hidden layer of 128 units in the MLP, and one output neuron."""
        teacher = build_teacher(small(n_classes=10), generator())
        shapes = {name: tuple(p.shape) for name, p in teacher.named_parameters() if "classifier" not in name}
        assert shapes == {
            "label_embedding.weight": (10, 128),
            "gate.0.weight": (128, 64 + 128),
            "gate.0.bias": (128,),
            "gate.2.weight": (1, 128),
            "gate.2.bias": (1,),
        }
        assert {
            n: tuple(p.shape) for n, p in Teacher(small(n_classes=10)).named_parameters() if n in shapes
        } == shapes

    def test_the_classifier_is_kept_as_it_is(self):
        classifier = small()
        before = snapshot(classifier)
        teacher = build_teacher(classifier, generator(9))
        assert teacher.classifier is classifier
        assert unchanged(classifier, before)


class TestBuild:
    @pytest.mark.parametrize(
        ("name", "side", "channels", "dim"),
        [
            ("small_cnn", 8, 1, 64), ("small_cnn", 32, 3, 64), ("resnet_narrow", 32, 3, 64),
            ("resnet_narrow", 28, 1, 64), ("resnet_small", 32, 3, 256), ("resnet_small", 28, 1, 256),
            ("resnet_small", 16, 3, 256), ("resnet34", 32, 3, 512), ("resnet50", 32, 3, 2048),
        ],
    )  # fmt: skip
    def test_forward_shapes(self, name, side, channels, dim):
        model = build_classifier(name, 10, channels, generator())
        x = torch.randn(2, channels, side, side, generator=generator(1))
        with torch.no_grad():
            features = model.features(x)
            logits = model(x)
        assert features.shape == (2, dim)
        assert logits.shape == (2, 10)
        assert logits.isfinite().all()
        assert not torch.equal(logits[0], logits[1])

    @pytest.mark.parametrize(("name", "original"), [("resnet34", resnet34), ("resnet50", resnet50)])
    def test_parameter_count_of_a_cifar_resnet(self, name, original):
        """torchvision's network with a 3x3 instead of a 7x7 stem and C instead of 1,000 outputs."""
        with torch.device("meta"):
            imagenet = original()
        dim = imagenet.fc.in_features
        expected = parameter_count(imagenet)
        expected += 64 * 3 * (3 * 3 - 7 * 7)
        expected += (dim + 1) * (10 - 1000)
        model = build_classifier(name, 10, 3, generator())
        assert parameter_count(model) == expected
        # The number that CIFAR-10 repositories print for this network.
        assert name != "resnet34" or expected == 21_282_122

    def test_parameter_counts_by_hand(self):
        def conv_and_norm(inputs, outputs, size):
            return inputs * outputs * size * size + 2 * outputs

        narrow = conv_and_norm(3, 16, 3)
        for inputs, outputs, shortcut in [(16, 16, False), (16, 32, True), (32, 64, True), (64, 64, True)]:
            narrow += conv_and_norm(inputs, outputs, 3) + conv_and_norm(outputs, outputs, 3)
            narrow += conv_and_norm(inputs, outputs, 1) if shortcut else 0
        assert parameter_count(build_classifier("resnet_narrow", 10, 3, generator())) == narrow + 64 * 10 + 10
        pooled, inputs = (3 * 4 + 1) * 16, 16
        for outputs in (32, 128, 256):
            summed = 1 if outputs == 32 else 2
            pooled += conv_and_norm(inputs, outputs, 3) + summed * conv_and_norm(outputs, outputs, 3)
            inputs = outputs
        assert parameter_count(build_classifier("resnet_small", 10, 3, generator())) == pooled + 256 * 10 + 10
        cnn = conv_and_norm(1, 16, 3) + conv_and_norm(16, 32, 3) + (32 * 4 * 4 * 64 + 64)
        assert parameter_count(small(n_classes=10)) == cnn + 64 * 10 + 10

    @pytest.mark.parametrize("name", ["resnet34", "resnet50"])
    def test_the_cifar_stem_keeps_the_resolution(self, name):
        """32x32 reaches the first stage whole and the last as 4x4; ImageNet's stem would leave 1x1."""
        model = build_classifier(name, 10, 3, generator())
        sides = []
        for stage in (model.features.layer1, model.features.layer4):
            stage.register_forward_hook(lambda *arguments: sides.append(tuple(arguments[2].shape[2:])))
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, 32, 32))
        assert sides == [(32, 32), (4, 4)]

    @pytest.mark.parametrize("name", ["small_cnn", "resnet_narrow"])
    def test_weights_are_a_function_of_the_generators_state(self, name):
        g = generator(3)
        first, next_one = (build_teacher(build_classifier(name, 10, 3, g), g) for _ in range(2))
        torch.manual_seed(1234)  # must not matter
        g = generator(3)
        again = build_teacher(build_classifier(name, 10, 3, g), g)
        assert unchanged(again, snapshot(first))
        same = [n for n, p in first.named_parameters() if torch.equal(p, next_one.state_dict()[n])]
        # Only what starts at zeros and ones is the same in two draws.
        assert all(first.get_parameter(n).unique().numel() == 1 for n in same)
        assert len(same) < len(list(first.parameters()))

    def test_unknown_name(self):
        with pytest.raises(ValueError, match=r"^model: 'resnet18' is not one of small_cnn, .*resnet50"):
            build_classifier("resnet18", 10, 3, generator())


class TestInitialise:
    def test_he_normal_convolutions(self):
        """Standard deviation sqrt(2 / (outputs * k * k)), from 18,432 weights; five standard errors."""
        model = Classifier(nn.Conv2d(32, 64, 3, device="meta"), 8, 2)
        weight = initialise(model, generator()).features.weight
        sigma, n = (2 / (64 * 9)) ** 0.5, weight.numel()
        assert weight.std().item() == pytest.approx(sigma, rel=5 / (2 * n) ** 0.5)
        assert abs(weight.mean().item()) <= 5 * sigma / n**0.5
        # A uniform distribution would end at 1.7 sigma.
        assert weight.abs().max() > 3 * sigma
        assert not model.features.bias.any()

    def test_linear_layers_embeddings_and_norms(self):
        model = nn.Sequential(nn.Linear(100, 300), nn.BatchNorm2d(5), nn.Embedding(50, 100)).to("meta")
        linear, norm, embedding = initialise(model, generator())
        # Uniform on [-1/10, 1/10]: 30,000 draws come within 1 % of both ends.
        assert linear.weight.abs().max() <= 0.1
        assert linear.weight.max() > 0.099
        assert linear.weight.min() < -0.099
        assert not linear.bias.any()
        assert (norm.weight == 1).all()
        assert not norm.bias.any()
        assert not norm.running_mean.any()
        assert (norm.running_var == 1).all()
        assert norm.num_batches_tracked == 0
        # Standard normal, 5,000 draws, five standard errors.
        assert embedding.weight.std().item() == pytest.approx(1, abs=5 / 10_000**0.5)

    def test_a_layer_without_a_rule_is_refused(self):
        with pytest.raises(TypeError, match="LayerNorm"):
            initialise(nn.Sequential(nn.LayerNorm(4, device="meta")), generator())


class TestWeights:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "weights.safetensors"

    def test_round_trip_with_running_statistics(self, path):
        model, other = small(0), small(1)
        model(torch.randn(8, 1, 8, 8, generator=generator()))
        save_weights(model, path)
        assert not unchanged(other, snapshot(model))
        load_weights(other, path)
        assert unchanged(other, snapshot(model))
        assert other.features[1].running_mean.any()

    def test_a_model_of_another_shape(self, path):
        model = small(0, n_classes=4)
        save_weights(small(1, n_classes=5), path)
        before = snapshot(model)
        with pytest.raises(ValueError, match=r"^weights: weights\.safetensors does not fit") as caught:
            load_weights(model, path)
        assert "head.weight has shape (5, 64), the model's has (4, 64)" in str(caught.value)
        assert "head.bias has shape (5,), the model's has (4,)" in str(caught.value)
        assert unchanged(model, before)

    def test_missing_and_unexpected_keys(self, path):
        model = small(0)
        weights = snapshot(small(1))
        weights["extra.weight"] = weights.pop("head.bias")
        save_file(weights, path)
        before = snapshot(model)
        with pytest.raises(ValueError, match="does not fit") as caught:
            load_weights(model, path)
        assert "missing head.bias" in str(caught.value)
        assert "unexpected extra.weight" in str(caught.value)
        assert unchanged(model, before)

    def test_a_long_list_is_cut_off(self):
        """A small_cnn has 16 tensors; an empty file lacks them all."""
        model = small()
        assert len(model.state_dict()) == 16
        before = snapshot(model)
        with pytest.raises(
            ValueError, match=r"^weights: nothing does not fit .*missing .*; and 10 more$"
        ) as caught:
            load_strictly(model, {}, source="nothing")
        assert str(caught.value).count("missing ") == 6
        assert unchanged(model, before)

    @pytest.mark.parametrize("damage", ["empty", "text", "truncated", "header"])
    def test_damaged_file(self, path, damage):
        model = small(0)
        save_weights(small(1), path)
        content = path.read_bytes()
        path.write_bytes(
            {"empty": b"", "text": b"no weights", "truncated": content[:-10], "header": content[:8]}[damage]
        )
        before = snapshot(model)
        with pytest.raises(ValueError, match=r"^weights: weights\.safetensors is damaged"):
            load_weights(model, path)
        assert unchanged(model, before)
