"""The typed configuration of one run: a run is a function of its :class:`Config`.

:func:`emlc_lib.training.presets.make_config` makes one.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ..networks.imagenet import check_imagenet_start
from ..networks.start_weights import are_awaited, check_start_weights
from ..runtime.execution import Precision, known_device
from ..runtime.parameters import Parameters
from .run_digest import K_METHODS, digest, identity

Dataset = Literal["digits", "fashion_mnist", "cifar10", "cifar100", "clothing1m"]


Method = Literal[
    "emlc", "mlc", "mslc", "mwnet", "mlnt", "fasten", "cross_entropy", "clean_only"
]  # fmt: skip


NoiseType = Literal["symmetric", "asymmetric", "human", "real"]


Preset = Literal["smoke", "quick", "paper"]


Model = Literal["small_cnn", "resnet_narrow", "resnet34", "resnet50", "resnet50_imagenet"]


CLOTHING1M_PRESETS = "take paper, which needs a GPU, or smoke for a trial on a small tree of its layout"


# Pydantic's context for the configuration of a finished run: the files that it began with may be gone.
STORED = {"stored": True}


class Config(Parameters):
    """Everything a run depends on. Defaults that differ between presets are in
    :data:`emlc_lib.training.presets.PRESETS`.

    Numbers without a unit in their description are dimensionless.
    """

    dataset: Dataset
    preset: Preset = Field(description="where the values below came from; recorded, not interpreted")
    method: Method = "emlc"
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

    model: Model
    resized_copy: bool = Field(
        False,
        description="clothing1m: read the smaller images that 'python -m emlc_lib.data.clothing1m.prepare copy' wrote",
    )
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

    epochs: int = Field(gt=0, le=10_000)
    batch_size: int = Field(gt=1)
    clean_batch_size: int = Field(gt=1)
    lr: float = Field(0.02, gt=0, le=10, description="eta_w, the student's learning rate")
    schedule: Literal["none", "cosine", "lr_step"] = Field(
        "none",
        description="none keeps both learning rates, lr_step lowers them once (both Table 4); cosine lets them "
        "fall to zero",
    )
    lr_step_epoch: int = Field(1, ge=1, description="lr_step: epochs before both learning rates are lowered")
    lr_step_factor: float = Field(0.1, gt=0, lt=1, description="lr_step: what they are multiplied by")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, le=1)
    augment: bool = Field(True, description="crop and flip of every batch, AutoAugment of the clean one")
    autoaugment: bool = Field(True, description="False leaves AutoAugment out, as one row of Table 3 does")

    k: int = Field(1, ge=1, le=1000, description="student steps per teacher update (Algorithm 1)")
    teacher_lr: float = Field(0.02, gt=0, le=10, description="eta_alpha, the teacher's learning rate")
    corruption: Literal["adversarial", "random", "none"] = Field(
        "adversarial", description="how half of the clean batch is corrupted for the BCE term; none omits it"
    )
    meta_term: bool = Field(True, description="False drops the meta term of eq. 12, for ablations")
    meta_weights: Literal["paper", "momentum", "exact"] = Field(
        "paper",
        description="weights of the mixed Hessians: gamma^(t - tau) of Prop. 2, the momentum-aware impulse "
        "response, or no approximation at all (k extra Hessian-vector products)",
    )

    # Where the released code differs from the paper (09_fidelity). The defaults are the paper's.
    step_order: Literal["matched", "reversed"] = Field(
        "matched",
        description="for k > 1; reversed multiplies the last step's Jacobian-vector product with the first step's "
        "labels and so on, as the released code does since May 2023",
    )
    step_mean: bool = Field(
        False, description="for k > 1, divides the meta term by k as well, as the released code does"
    )
    teacher_momentum: float | None = Field(
        None, ge=0, lt=1, description="None takes the student's; the released code has none for the teacher"
    )

    # Of one competing method each, whose name comes first; see its file for where the value is from.
    mlc_lr: float = Field(3e-4, gt=0, le=1, description="Adam's rate for the label correction network")
    mlc_mix_clean: bool = Field(
        True,
        description="one half of each clean batch trains the student and the other is the meta-objective, as in "
        "all published commands; False: all of it is the meta-objective",
    )
    mlc_curvature: Literal["identity", "exact"] = Field(
        "identity",
        description="for k > 1, H_ww in the discount of earlier meta-gradients: the identity as published, or the "
        "Hessian of the student's loss (one Hessian-vector product more a step)",
    )
    mslc_lr: float = Field(1e-3, gt=0, le=1, description="Adam's rate for the two coefficient networks")
    mslc_plain_share: float = Field(
        2 / 3, ge=0, lt=1, description="share of the epochs before labels are corrected (80 of 120)"
    )
    mslc_soft_targets: bool = Field(
        False,
        description="predictions enter the corrected label as their highest class (its public code); True: as "
        "probabilities (its eq. 8 to the letter)",
    )
    mwnet_lr: float = Field(1e-3, gt=0, le=10, description="Adam's learning rate for the weight net; constant")
    mlnt_sets: int = Field(10, ge=1, le=100, description="M, sets of synthetic labels per batch")
    mlnt_lr: float = Field(0.2, gt=0, le=10, description="alpha, the learning rate of the look-ahead step")
    mlnt_meta_lr: float = Field(0.4, ge=0, le=10, description="eta, the meta step's rate after its ramp-up")
    mlnt_decay: float = Field(0.99, ge=0, lt=1, description="gamma of the moving average that is the teacher")
    fasten_threshold: float = Field(
        0.8, ge=0, le=1, description="rho, the confidence from which a label is corrected"
    )
    fasten_noisy_weight: float = Field(
        0.5, gt=0, le=100, description="lambda, the weight of the noisy head's loss"
    )
    meta_pass: Literal["forward_mode", "double_backward"] = Field(
        "forward_mode",
        description="mlc, mslc: how the meta-gradient is computed: by Proposition 3 and forward mode, or by a "
        "second backward pass as published, which gives the same numbers in more time",
    )

    # How it is computed. Only bfloat16 changes more than rounding.
    precision: Precision = Field(
        "float32",
        description="of all passes, forward mode included (emlc_lib/core/tangent.py says how); weights, batch "
        "statistics, losses and probabilities are in float32",
    )
    share_primal: bool | None = Field(
        None,
        description="reuse the training pass's activations in the forward-mode pass: less time, more memory; "
        "None does where it is exact and was measured to pay",
    )
    teacher_pass: Literal["kept", "recomputed"] = Field(
        "kept",
        description="for k > 1, the teacher's graphs of the k noisy batches: kept until its update, or recomputed "
        "then, one at a time, in the memory of k = 1",
    )
    compile: bool = Field(False, description="torch.compile networks and forward mode")
    cuda_graph: bool = Field(
        False,
        description="emlc with k = 1 in one process: replay each step as one CUDA graph (emlc_lib/runtime/cuda_graph.py), "
        "once that was seen to give what the step gives; for small networks, whose launches take longer than they",
    )
    channels_last: bool = Field(
        True, description="layout of images and weights; False is slower nearly everywhere"
    )

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        # Not whether it is here: runs of a GPU are listed and read back on machines without one.
        return known_device(device)

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Config:
        if self.noise_type == "human":
            if not self.dataset.startswith("cifar"):
                raise ValueError("noise_type: human labels exist for cifar10 (10N) and cifar100 (100N) only")
            if not self.human_labels:
                raise ValueError("human_labels: noise_type human needs the path of an .npz label file")
        self._check_clothing1m()
        if self.preset == "paper" and not self.dataset.startswith("cifar") and self.dataset != "clothing1m":
            raise ValueError("preset: paper (Table 4) is defined for cifar10, cifar100 and clothing1m")
        if info.context is not STORED:
            self._check_start()
        if self.method == "mslc" and self.mslc_plain_epochs >= self.epochs:
            raise ValueError(
                f"mslc_plain_share: {self.mslc_plain_share:.3g} of {self.epochs} epochs are all of them, and "
                "no label would be corrected; give more epochs or a smaller share"
            )
        if self.precision == "tf32" and not self.device.startswith("cuda"):
            raise ValueError("precision: tf32 needs a CUDA device")
        if self.share_primal and self.compile:
            raise ValueError("share_primal: is for networks that are not compiled")
        if self.cuda_graph and not (self.device.startswith("cuda") and self.method == "emlc" and self.k == 1):
            raise ValueError("cuda_graph: is for method emlc with k = 1 on a CUDA device")
        if self.cuda_graph and self.compile:
            raise ValueError("cuda_graph: captures the plain step, without compile")
        if self.n_clean is not None and self.clean_batch_size > self.n_clean:
            raise ValueError(f"clean_batch_size: {self.clean_batch_size} is more than n_clean {self.n_clean}")
        return self

    def _check_start(self) -> None:
        if self.start == "simclr":
            check_start_weights(self.dataset, self.model, self.start_weights)
        elif self.start == "imagenet":
            check_imagenet_start(self.model, self.start_weights)
        elif self.start_weights is not None:
            raise ValueError("start_weights: is for start simclr and imagenet only")

    def _check_clothing1m(self) -> None:
        if (self.noise_type == "real") != (self.dataset == "clothing1m"):
            raise ValueError("noise_type: real noise is that of clothing1m, which has no other")
        if self.dataset != "clothing1m":
            if self.n_clean is None:
                raise ValueError("n_clean: only clothing1m has a clean set of its own; give a number")
            if self.resized_copy:
                raise ValueError("resized_copy: is for clothing1m only")
        elif self.splits == "released":
            raise ValueError("splits: clothing1m has published lists, in the released code too")
        elif self.preset == "quick":
            raise ValueError(f"preset: quick is not for clothing1m; {CLOTHING1M_PRESETS}")

    @property
    def mslc_plain_epochs(self) -> int:
        """Epochs of MSLC before labels are corrected."""
        return round(self.mslc_plain_share * self.epochs)

    @property
    def shares_primal(self) -> bool:
        """What ``share_primal`` comes to. With k > 1 the memory that is held on to costs what it saves."""
        if self.share_primal is not None:
            return self.share_primal
        looks_ahead = self.k > 1 and self.method in K_METHODS
        return not looks_ahead and not self.compile

    @property
    def awaits_weights(self) -> bool:
        """Whether the SimCLR weights that it starts from are yet to be pretrained.

        :func:`emlc_lib.run` and :func:`emlc_lib.experiments.sweep.sweep` do so first. Digest and name of the run
        are made of their content, too; until then both are provisional, and the name has ``unpretrained`` in it.
        """
        return self.start == "simclr" and are_awaited(self.dataset, self.model, self.start_weights)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that differ whenever any parameter that this method uses differs."""
        return digest(self.model_dump())

    @property
    def identity(self) -> dict[str, Any]:
        """The parameters that this method uses, with the content of files in place of their names."""
        return identity(self.model_dump())

    @property
    def name(self) -> str:
        """A readable and unique name of the run, used for its folder."""
        noise = {"human": f"-{self.human_key}", "real": ""}.get(self.noise_type, f"-{self.noise:g}")
        k = f"-k{self.k}" if self.method in K_METHODS else ""
        end = f"{'unpretrained-' if self.awaits_weights else ''}{self.digest}"
        return f"{self.dataset}-{self.preset}-{self.noise_type}{noise}-{self.method}{k}-seed{self.seed}-{end}"


class OwnConfig(Config):
    """The configuration of a training on a user's images, which come with the data and not from ``load_dataset``.

    Model ``own`` is a feature extractor that is handed to the trainer.
    """

    dataset: Literal["own"]
    model: Literal[Model, "own"]
