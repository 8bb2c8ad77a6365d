"""The parameters that decide what a run sees: samples, labels and batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from ..runtime.execution import known_device
from ..runtime.parameters import Parameters
from .datasets import DATASETS
from .spec import DatasetSpec, spec_of

# The name of a data set that was registered.
Dataset = Annotated[str, AfterValidator(lambda name: spec_of(name).name)]
NoiseType = Literal["symmetric", "asymmetric", "human", "file", "real"]

# Those that ``noise`` is the rate of.
RATED = ("symmetric", "asymmetric")


class DataParameters(Parameters):
    """What :func:`emlc_lib.data.prepare.prepare` and :class:`emlc_lib.data.batches.Batches` look at."""

    dataset: Dataset
    seed: int = Field(0, ge=0, lt=2**31)
    device: str = "cpu"

    noise_type: NoiseType = Field(
        "symmetric",
        description="human: the labels of CIFAR-10N/100N; file: split and labels of a noise file; "
        "real: labels as they come (clothing1m)",
    )
    noise: float = Field(0.9, ge=0, le=1, description="noise rate of Appendix E; the other types have their own")
    human_labels: str | None = Field(None, description="path of an .npz file, for human noise only")
    human_key: str = Field("worse_label", description="name of the label array in that file")
    noise_file: str | None = Field(
        None,
        description="path of a file of 'emlc noise', for noise_type file only; noise, n_clean, n_noisy and splits "
        "are the file's",
    )
    noise_sha256: str | None = Field(
        None, description="SHA-256 of what the noise file holds: filled in, or refused if it is another"
    )
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
        description="clothing1m: read the smaller images that 'emlc clothing1m copy' wrote",
    )

    batch_size: int = Field(gt=1)
    clean_batch_size: int = Field(gt=1)
    augment: bool = Field(True, description="crop and flip of every batch, AutoAugment of the clean one")
    autoaugment: bool = Field(True, description="False leaves AutoAugment out, as one row of Table 3 does")

    @property
    def spec(self) -> DatasetSpec:
        """What is known of the data set."""
        return DATASETS[self.dataset]

    @property
    def noise_key(self) -> str:
        """What tells noises of one type apart: a rate, the name of human labels or of a noise file; else empty."""
        if self.noise_type == "file":
            return f"labels-{self.noise_sha256[:8]}.npz" if self.noise_sha256 else Path(self.noise_file).name
        return {"human": self.human_key, "real": ""}.get(self.noise_type, f"{self.noise:g}")

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        # Not whether it is here: runs of a GPU are listed and read back on machines without one.
        return known_device(device)

    @model_validator(mode="after")
    def _one_experiment(self) -> DataParameters:
        spec = self.spec
        if self.noise_type not in spec.noise_types:
            those = [other.name for other in DATASETS.values() if self.noise_type in other.noise_types]
            raise ValueError(
                f"noise_type: {self.noise_type} is for {', '.join(those)}, not for {spec.name}, which has "
                f"{', '.join(spec.noise_types)}"
            )
        if self.noise_type == "human" and not self.human_labels:
            raise ValueError("human_labels: noise_type human needs the path of an .npz label file")
        if (self.noise_type == "file") != (self.noise_file is not None):
            raise ValueError(
                "noise_file: noise_type file needs the path of a noise file, and no other type has one"
            )
        if self.noise_sha256 is not None and self.noise_type != "file":
            raise ValueError("noise_sha256: is for noise_type file only")
        if self.noise_type == "asymmetric" and self.asymmetric_map == "similar" and spec.look_alikes is None:
            raise ValueError(f"asymmetric_map: {spec.name} has no map of similar classes; take random")
        if not spec.in_memory:
            if self.splits == "released":
                raise ValueError(f"splits: {spec.name} has published lists, in the released code too")
        elif self.n_clean is None:
            raise ValueError(f"n_clean: {spec.name} has no clean set of its own; give a number")
        elif self.resized_copy:
            raise ValueError(f"resized_copy: is for images on disk, and {spec.name} is in memory")
        sized = self.n_clean is not None and self.noise_type != "file"
        if sized and self.clean_batch_size > self.n_clean:
            raise ValueError(f"clean_batch_size: {self.clean_batch_size} is more than n_clean {self.n_clean}")
        return self
