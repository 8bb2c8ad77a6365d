"""The typed configuration of one run: a run is a function of its :class:`Config`.

:func:`emlc_lib.training.presets.make_config` makes one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, create_model, model_validator

from ..data.spec import OWN, DatasetSpec
from ..methods import METHODS, MethodParameters
from ..networks.backbones import Model
from ..networks.weights import are_awaited, check_imagenet_start, check_start_weights
from ..runtime.parameters import ConfigError as ConfigError
from .run_digest import NOISE, digest_of, identity_of, switched_off

Preset = Literal["smoke", "quick", "small", "paper"]

# Parameters that are gone, with the value that stored runs may have: what is computed now.
GONE = {"compile": False, "mlc_curvature": "identity", "mlc_mix_clean": True, "mslc_soft_targets": False}

# Pydantic's context for the configuration of a finished run: the files that it began with may be gone.
STORED = {"stored": True}


class Config(MethodParameters):
    """Everything a run depends on: the parameters of its data, of its method, and these.

    That of a method is :func:`config_class`. Defaults that differ between presets are in
    :data:`emlc_lib.training.presets.PRESETS`, but for the precision. Numbers without a unit in their description
    are dimensionless.
    """

    method: str
    preset: Preset = Field(description="where the values below came from; recorded, not interpreted")
    model: Model
    start: Literal["random", "simclr", "imagenet"] = Field(
        description="initial feature extractors: random, or as in Table 4: self-supervised by SimCLR on the same "
        "images, or supervised on ImageNet"
    )
    start_weights: str | None = Field(
        None,
        description="safetensors file, for imagenet torchvision's own, too; None takes the one that comes with "
        "this package, else for simclr the one below the data root, where the first run puts it after pretraining "
        "it, and for imagenet torchvision downloads it",
    )
    start_steps: int = Field(0, ge=0, description="SGD steps of a supervised warm-up on the clean set; 0 for none")
    start_lr: float = Field(0.05, gt=0, le=10, description="highest learning rate of the warm-up")

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Config:
        if info.context is STORED:
            return self
        if self.start == "simclr":
            check_start_weights(self.dataset, self.model, self.start_weights)
        elif self.start == "imagenet":
            check_imagenet_start(self.model, self.start_weights)
        elif self.start_weights is not None:
            raise ValueError("start_weights: is for start simclr and imagenet only")
        return self

    def __reduce__(self):
        # Its class is made on the fly: another process makes its own.
        return from_values, (self.model_dump(),)

    @property
    def awaits_weights(self) -> bool:
        """Whether the SimCLR weights that it starts from are yet to be pretrained.

        :func:`emlc_lib.run` and :func:`emlc_lib.experiments.sweep.sweep` do so first; until then digest and name
        are provisional, and the name has ``unpretrained`` in it.
        """
        return self.start == "simclr" and are_awaited(self.dataset, self.model, self.start_weights)

    @property
    def digest(self) -> str:
        """:func:`~emlc_lib.training.run_digest.digest_of` the :attr:`identity`."""
        return digest_of(self.identity)

    @property
    def identity(self) -> dict[str, Any]:
        """See :func:`emlc_lib.training.run_digest.identity_of`."""
        return identity_of(self)

    @property
    def name(self) -> str:
        """A readable and unique name of the run, used for its folder."""
        noise = "-".join(filter(None, [self.noise_type, self.noise_key.removesuffix(".npz")]))
        k = f"-k{self.k}" if METHODS[self.method].looks_ahead else ""
        end = f"{self.method}{k}-seed{self.seed}"
        digest = f"unpretrained-{self.digest}" if self.awaits_weights else self.digest
        return "-".join([self.dataset, str(self.preset), *([] if self.is_blind else [noise]), end, digest])

    @property
    def is_blind(self) -> bool:
        """Whether the noise does not matter: the method does not see it, and it does not bring a clean set."""
        return not METHODS[self.method].sees_noise and self.noise_type != "file"

    def has(self, name: str, value: Any) -> bool:
        """Whether a parameter has this value; where the method does not see the noise, any noise will do."""
        if name in ("noise", "n_clean", "n_noisy", "splits") and name in switched_off(self):
            return False
        blind = name in NOISE and self.is_blind and value != "file"
        return blind or getattr(self, name, None) == value

    @property
    def same_noise(self) -> dict[str, Any]:
        """The parameters that runs on the same kind of noise share, for :func:`emlc_lib.find_runs`."""
        names = {"human": "human_key", "file": "noise_sha256", "real": "noise_type"}
        return {name: getattr(self, name) for name in ("noise_type", names.get(self.noise_type, "noise"))}


class OwnConfig(Config):
    """The configuration of a training on a user's images: their labels are real ones, and there is no preset.

    Model ``own`` is a feature extractor that is handed to the trainer.
    """

    dataset: Literal["own"] = "own"
    noise_type: Literal["real"] = "real"
    preset: None = None
    model: Literal[Model, "own"]

    @property
    def spec(self) -> DatasetSpec:
        return OWN


@functools.cache
def config_class(base: type[Config], method: str) -> type[Config]:
    """The configuration of a method, which has its parameters and no other's."""
    bases = (base, METHODS[method].Parameters)
    return create_model(f"{base.__name__}_{method}", __base__=bases, method=(Literal[method], method))


def from_values(values: Mapping[str, Any]) -> Config:
    """The configuration that a finished run has stored; the files that it began with may be gone.

    Raises:
        pydantic.ValidationError: it is not one of this version.
    """
    values = {name: value for name, value in values.items() if name not in GONE or value != GONE[name]}
    cls = config_class(OwnConfig if values.get("dataset") == "own" else Config, values.get("method", "emlc"))
    return cls.model_validate(values, context=STORED)
