"""Where the features of a user's images come from: torchvision, our SimCLR weights, pretraining; offline."""

import numpy as np
import pytest
import torch
import torchvision

from emlc_lib import ConfigError, EMLCClassifier
from emlc_lib.data.datasets import DATASETS
from emlc_lib.data.spec import IMAGENET
from emlc_lib.estimator.features import PREFIX, TORCHVISION, empty_features
from emlc_lib.estimator.parameters import settle
from emlc_lib.estimator.sets import pair
from emlc_lib.runtime.tangent import TapedForward, UnsupportedModel

# Trainings of one step correct nothing, and say so.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in ("no label was changed", "the gate stayed")]

TINY = {"epochs": 1, "start_steps": 1, "batch_size": 8, "clean_batch_size": 4}


def sets(size=32, channels=(3,), n=16):
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 256, (m, size, size, *channels), dtype=np.uint8), np.arange(m) % 2) for m in (n, 4)]


def comes_back(estimator, x, tmp_path):
    estimator.save(tmp_path / "e.safetensors")
    back = EMLCClassifier.load(tmp_path / "e.safetensors")
    return np.array_equal(back.predict_proba(x), estimator.predict_proba(x))


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_models_give_embeddings_without_randomness(name):
    features, dim = empty_features(PREFIX + name, 3)
    with torch.no_grad():
        for value in (*features.parameters(), *features.buffers()):
            value.fill_(0.1)
    before = torch.get_rng_state()
    assert features.train()(torch.zeros(2, 3, 64, 64)).shape == (2, dim)
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture
def published(monkeypatch):
    """Downloads are replaced by weights of the same shapes."""
    asked = []

    def state(weights, **_):
        asked.append(str(weights))
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return torchvision.models.get_model("resnet18", weights=None).state_dict()

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", state)
    return asked


def test_published_weights_of_torchvision(published, tmp_path):
    noisy, clean = sets(size=16, channels=())
    model = EMLCClassifier(
        **TINY, model="torchvision:resnet18", lr=1e-9, teacher_lr=1e-9, options={"start_lr": 1e-9}
    )
    before = torch.get_rng_state()
    model.fit(noisy, clean)
    assert torch.equal(before, torch.get_rng_state())
    assert published == ["ResNet18_Weights.IMAGENET1K_V1"]
    # Grey images become colour ones, standardised as those that the weights have seen; the weights are the start.
    assert (model.channels_, model._constants) == (3, IMAGENET)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = torchvision.models.resnet18(weights=None).conv1.weight
    for network in (model.student_, model.teacher_.classifier):
        torch.testing.assert_close(network.features.conv1.weight, first, rtol=0, atol=1e-6)
    assert comes_back(model, noisy[0], tmp_path)


def test_published_weights_that_cannot_be_downloaded(monkeypatch):
    def fails(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", fails)
    with pytest.raises(ConfigError, match=r"^start: torchvision's weights .* downloaded .* Fetch resnet18-"):
        EMLCClassifier(**TINY, model="torchvision:resnet18").fit(*sets(size=16))


def test_the_shipped_simclr_weights(tmp_path):
    noisy, clean = sets()
    model = EMLCClassifier(**TINY, start="shipped").fit(noisy, clean)
    assert model._model == "resnet_narrow"
    assert model._constants == DATASETS["cifar10"].constants
    grey = EMLCClassifier(**TINY, start="shipped").fit(*sets(channels=()))
    assert grey.channels_ == 3
    assert comes_back(model, noisy[0], tmp_path)
    random = EMLCClassifier(**TINY, start="random").fit(noisy, clean)
    assert not np.array_equal(random.predict_proba(noisy[0]), model.predict_proba(noisy[0]))


@pytest.mark.parametrize("channels", [(), (3,)])
def test_pretraining_on_the_images_themselves(channels, tmp_path):
    noisy, clean = sets(size=8, channels=channels)
    one, again = (EMLCClassifier(**TINY, start="pretrain", pretrain_epochs=1).fit(noisy, clean) for _ in range(2))
    longer = EMLCClassifier(**TINY, start="pretrain", pretrain_epochs=2).fit(noisy, clean)
    assert one._model == "small_cnn"
    x = noisy[0]
    assert np.array_equal(one.predict_proba(x), again.predict_proba(x))
    assert not np.array_equal(one.predict_proba(x), longer.predict_proba(x))
    assert comes_back(one, x, tmp_path)


@pytest.mark.parametrize("name", TORCHVISION)
def test_activations_are_shared_where_there_are_rules_for_the_layers(name):
    noisy, clean = sets(size=32)
    _, _, _, config = settle(EMLCClassifier(model=PREFIX + name, k=1).get_params(), pair(noisy, clean, None))
    features, _ = empty_features(PREFIX + name, 3)
    if config.shares_primal:
        assert TapedForward(features)
    else:
        with pytest.raises(UnsupportedModel):
            TapedForward(features)
