"""What a pretraining depends on: its parameters, and their values for each model."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from ..data.datasets import DATASETS
from ..data.parameters import Dataset
from ..data.spec import spec_of
from ..runtime.execution import Precision, bfloat16_is_fast, check_device, chosen_device
from ..runtime.parameters import Parameters, checked, refuse_unknown
from .backbones import Model

# Parameters that earlier pretrainings do not know.
LATER = ("projection_hidden", "projection_norm")


def _with_views(dataset: str) -> str:
    if DATASETS[dataset].views is None:
        raise ValueError(f"{dataset} has no views for SimCLR; nothing is pretrained on it here")
    return dataset


class PretrainConfig(Parameters):
    """Everything a pretraining depends on. Numbers without a unit in their description are dimensionless."""

    dataset: Annotated[Dataset, AfterValidator(_with_views)]
    model: Model
    seed: int = Field(0, ge=0, lt=2**31)
    device: str = "cpu"
    precision: Precision = Field(
        "bfloat16",
        description="of the network's passes, the loss is in float32; float32 on a CPU without instructions for "
        "bfloat16, if not given",
    )
    epochs: int = Field(gt=0, le=10_000)
    batch_size: int = Field(512, gt=1, description="images per step, each in two views")
    view_size: int = Field(gt=3, le=512, description="side of the views in pixels")
    lr: float = Field(gt=0, le=10, description="highest learning rate of SGD")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0, le=1)
    warmup_epochs: float = Field(ge=0, description="linear rise of the learning rate, before its cosine fall")
    temperature: float = Field(0.2, gt=0, le=10, description="tau of NT-Xent")
    projection_dim: int = Field(128, gt=0, description="size of the projection head's output")
    projection_hidden: int | None = Field(None, gt=0, description="of its hidden layer; None: as the embedding")
    projection_norm: bool = Field(False, description="whether its hidden layer has batch norm")

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        return check_device(device)

    @property
    def identity(self) -> dict[str, Any]:
        """All parameters; those that came later only if they are not at their defaults, as they were before."""
        later = {name: PretrainConfig.model_fields[name].default for name in LATER}
        return {name: v for name, v in self.model_dump().items() if name not in later or v != later[name]}

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that differ whenever any parameter differs."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def name(self) -> str:
        """A readable and unique name, used for the folder."""
        return f"simclr-{self.dataset}-{self.model}-seed{self.seed}-{self.digest}"


class OwnPretrainConfig(PretrainConfig):
    """The configuration of a pretraining on a user's images."""

    dataset: Literal["own"] = "own"


# By model: views of 24 pixels cost half of 32, and since crops magnify, their objects have about the size that
# they have in whole images of 32 (Touvron et al., 2019).
DEFAULTS: dict[str, dict] = {
    "small_cnn": dict(epochs=40, batch_size=256, view_size=8, lr=0.2, warmup_epochs=2),
    "resnet_narrow": dict(epochs=80, batch_size=256, view_size=24, lr=0.3, warmup_epochs=2),
    "resnet_small": dict(
        epochs=200, batch_size=256, view_size=24, lr=0.3, warmup_epochs=4, projection_hidden=512,
        projection_norm=True,
    ),
    "resnet34": dict(epochs=200, view_size=32, lr=0.5, warmup_epochs=10),
    "resnet50": dict(epochs=200, view_size=32, lr=0.5, warmup_epochs=10),
}  # fmt: skip


def make_pretrain_config(
    *, dataset: str = "cifar10", model: str = "auto", device: str = "auto", **changes
) -> PretrainConfig:
    """A validated configuration: the model's defaults, overridden by ``changes`` that are not None.

    ``model="auto"`` means what the data set's ``models`` says: the small CNN for digits; otherwise the ResNet of
    the paper where CUDA is there (ResNet-34, for CIFAR-100 ResNet-50), else the narrow one. A CPU without
    instructions for bfloat16 computes in float32, unless ``precision`` is given.

    Raises:
        ConfigError: any unknown name or value that is not allowed.
    """
    refuse_unknown(sorted(changes), PretrainConfig.model_fields)
    device = chosen_device(device)
    if model == "auto":
        model = spec_of(dataset).models[str(device).startswith("cuda")]
    if not bfloat16_is_fast(str(device)):
        changes = {"precision": "float32"} | {name: value for name, value in changes.items() if value is not None}
    return _checked(PretrainConfig, dataset=spec_of(dataset).name, model=model, device=device, **changes)


def own_pretrain_config(*, model: str, device: str, **changes) -> OwnPretrainConfig:
    """The same for a user's images, whose sizes decide over ``view_size`` and ``batch_size``."""
    return _checked(OwnPretrainConfig, model=model, device=device, **changes)


def _checked(cls: type[PretrainConfig], model: str, **values) -> PretrainConfig:
    defaults = DEFAULTS.get(str(model), DEFAULTS["resnet_narrow"])
    given = {name: value for name, value in values.items() if value is not None}
    return checked(cls, model=model, **defaults | given)
