"""The parameters that decide what a run sees: samples, labels and batches."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ..runtime.execution import known_device
from ..runtime.parameters import Parameters

Dataset = Literal["digits", "fashion_mnist", "cifar10", "cifar100", "clothing1m"]
NoiseType = Literal["symmetric", "asymmetric", "human", "real"]


class DataParameters(Parameters):
    """What :func:`emlc_lib.data.prepare.prepare` and :class:`emlc_lib.data.batches.Batches` look at."""

    dataset: Dataset
    seed: int = Field(0, ge=0, lt=2**31)
    device: str = "cpu"

    noise_type: NoiseType = Field(
        "symmetric", description="human: the labels of CIFAR-10N/100N; real: the crawled ones of clothing1m"
    )
    noise: float = Field(
        0.9, ge=0, le=1, description="noise rate of Appendix E; human and real noise have their own"
    )
    human_labels: str | None = Field(None, description="path of an .npz file, for human noise only")
    human_key: str = Field("worse_label", description="name of the label array in that file")
    asymmetric_map: Literal["similar", "random"] = Field(
        "similar",
        description="what asymmetric noise turns a class into: a similar one (Appendix E), or a random other one, "
        "as in the released code",
    )
    n_clean: int | None = Field(
        gt=0,
        description="size of the class-balanced clean set; clothing1m: of its clean list, which None takes all",
    )
    n_noisy: int | None = Field(None, gt=0, description="size of the noisy set; None takes all the rest")
    splits: Literal["disjoint", "released"] = Field(
        "disjoint",
        description="released: as in the released code, the noisy set is drawn without regard to the clean one, "
        "and the epoch is chosen by n_clean further clean labels instead of the clean set",
    )
    resized_copy: bool = Field(
        False,
        description="clothing1m: read the smaller images that 'python -m emlc_lib.data.clothing1m.prepare copy' "
        "wrote",
    )

    batch_size: int = Field(gt=1)
    clean_batch_size: int = Field(gt=1)
    augment: bool = Field(True, description="crop and flip of every batch, AutoAugment of the clean one")
    autoaugment: bool = Field(True, description="False leaves AutoAugment out, as one row of Table 3 does")

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        # Not whether it is here: runs of a GPU are listed and read back on machines without one.
        return known_device(device)

    @model_validator(mode="after")
    def _one_experiment(self) -> DataParameters:
        if self.noise_type == "human":
            if not self.dataset.startswith("cifar"):
                raise ValueError("noise_type: human labels exist for cifar10 (10N) and cifar100 (100N) only")
            if not self.human_labels:
                raise ValueError("human_labels: noise_type human needs the path of an .npz label file")
        if (self.noise_type == "real") != (self.dataset == "clothing1m"):
            raise ValueError("noise_type: real noise is that of clothing1m, which has no other")
        if self.dataset == "clothing1m":
            if self.splits == "released":
                raise ValueError("splits: clothing1m has published lists, in the released code too")
        elif self.n_clean is None:
            raise ValueError("n_clean: only clothing1m has a clean set of its own; give a number")
        elif self.resized_copy:
            raise ValueError("resized_copy: is for clothing1m only")
        if self.n_clean is not None and self.clean_batch_size > self.n_clean:
            raise ValueError(f"clean_batch_size: {self.clean_batch_size} is more than n_clean {self.n_clean}")
        return self
