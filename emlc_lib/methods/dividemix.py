r"""DivideMix (Li, Socher and Hoi, ICLR 2020) from a self-supervised start: C2D (Zheltonozhskii et al., WACV 2022).

No clean label, two networks, and label noise as semi-supervised learning. After a warm-up by cross-entropy on the
noisy labels, at the beginning of each epoch,

1. a mixture of two Gaussians is fitted to a network's losses of all noisy labels, scaled to [0, 1]: w_i, the
   probability of the component with the lower mean, says how likely label i is right;
2. the *other* network learns by it: labels with w_i > 0.5 are kept, the other samples are without a label.

In each step each network takes as many samples of either kind, in two views, with targets

    labelled:    sharpen(w_i y~_i + (1 - w_i) p_i),  p_i its own prediction, the mean over the views;
    unlabelled:  sharpen(the mean of both networks' predictions over the views),

where sharpen(p)_c = p_c^(1/T) / sum. Images and targets are mixed (MixUp) with a permutation of themselves, by
lambda' = max(lambda, 1 - lambda) with lambda from Beta(alpha, alpha), and the loss is

    CE(labelled) + lambda_u mean (p - q)^2 (unlabelled) + sum_c pi_c log(pi_c / mean p_c),  pi_c = 1 / C,

a mixture being of the kind of its larger part. The clean set trains nothing: it chooses the epoch, as for every
method, and the presets leave out the warm-up on it (``start_steps``).

Choices, with the papers and both released codes in view (LiJunnan1992/DivideMix, ContrastToDivide/C2D):

* A step draws half a batch of either kind, for each network from permutations of its own, and an epoch has as
  many steps as every other method's. In the codes an epoch is one pass over the labelled samples: as many steps if
  half of all samples are labelled, and fewer under more noise. The codes train one network for an epoch, then the
  other; here each step is one of both.
* The mixture of Gaussians has C2D's settings (DivideMix stops it after 10 iterations), and as there either kind
  has at least one sample. The codes average the losses of five epochs if told that the noise is 90 %; this does
  not look at the rate.
* T = 0.5, alpha = 4 and lambda_u = 25 are the papers' for CIFAR-10 at 50 %; they choose lambda_u (0 to 500) and
  the threshold by data set and noise. lambda_u rises linearly over the rest of the run; over 16 epochs of 300
  there, which is longer than most runs here.
* The warm-up has a tenth of the epochs (DivideMix: 10 of 300, C2D: 5 of 360), from random features more. As in the
  codes, the negative entropy is a penalty in it where the noise is not symmetric. The networks see different
  batches.
* A network predicts for its own targets in training mode, as in the codes. Running statistics are those of unmixed
  images, as test images are; there, mixed ones count, too.
* Views are crops and flips. The optimiser is this project's SGD (there with weight decay 5e-4).
* One network is reported, the student; the codes report the sum of both networks' logits.
"""

from __future__ import annotations

import copy
import math
from functools import lru_cache

import numpy as np
import torch
from pydantic import Field, model_validator
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.nn import functional as F

from ..core.losses import soft_cross_entropy
from ..core.meta_gradient import batch_statistics_only
from ..core.metrics import correction_counts
from ..core.teacher import initialise
from ..runtime.execution import to_device
from .base import Method, MethodParameters
from .look_ahead import SampleMemory


def clean_probabilities(losses: Tensor, seed: int) -> Tensor:
    """w, how likely each label is right: (N,) losses to (N,) float64 on the CPU; 0.5 if all losses are alike."""
    losses = losses.double().cpu()
    above, spread = losses - losses.min(), losses.max() - losses.min()
    if spread == 0:
        return torch.full_like(losses, 0.5)
    scaled = (above / spread).numpy()[:, None]
    mixture = GaussianMixture(2, max_iter=200, tol=1e-2, reg_covar=5e-4, random_state=seed).fit(scaled)
    return torch.from_numpy(mixture.predict_proba(scaled)[:, mixture.means_.argmin()])


def labelled_part(clean: Tensor, threshold: float) -> Tensor:
    """(N,) bool, whose label is kept: w above the threshold; of N > 1 the surest is, and the least sure is not."""
    kept, order = clean > threshold, clean.argsort(stable=True)
    kept[order[-1]], kept[order[0]] = True, False
    return kept


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """Rows of (n, C) to the power of 1 / T, normalised."""
    powers = probabilities ** (1 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


def mixup_share(alpha: float, generator: torch.Generator) -> float:
    """lambda' = max(lambda, 1 - lambda), lambda from Beta(alpha, alpha)."""
    seed = torch.randint(2**62, (), generator=generator).item()  # torch draws no Beta from a generator
    drawn = np.random.default_rng(seed).beta(alpha, alpha)
    return max(drawn, 1 - drawn)


def mixed(values: Tensor, order: Tensor, share: float) -> Tensor:
    """MixUp of rows: ``share`` of each, and the rest of the one that ``order`` (n,) puts there."""
    return share * values + (1 - share) * values[order]


def objective(logits: Tensor, targets: Tensor, labelled: int, weight: float) -> Tensor:
    """The loss of mixtures, the first ``labelled`` of which are of the labelled kind.

    Args:
        logits, targets: (n, C). weight: lambda_u, of the squared error's mean over samples and classes.
    """
    log_p = logits.log_softmax(dim=1)
    unlabelled = F.mse_loss(log_p[labelled:].exp(), targets[labelled:])
    mean = torch.logsumexp(log_p, dim=0) - math.log(len(log_p))  # the log of the mean prediction
    prior = -math.log(logits.shape[1]) - mean.mean()
    return soft_cross_entropy(logits[:labelled], targets[:labelled]) + weight * unlabelled + prior


class DivideMix(Method, name="dividemix", label="DivideMix"):
    """Recovery is that of the student's targets of the whole noisy set at the beginning of an epoch, without
    augmentation; ``labelled`` in the log is the share of samples whose labels it keeps then."""

    look = ("#AA4499", "P")

    class Parameters(MethodParameters):
        dividemix_warm_up: float = Field(
            0.1, gt=0, lt=1, description="share of the epochs, at least one, of cross-entropy before the division"
        )
        dividemix_threshold: float = Field(0.5, gt=0, lt=1, description="of w, above which a label is kept")
        dividemix_weight: float = Field(
            25.0, ge=0, le=1000, description="lambda_u, of the loss without labels, at the end of its ramp-up"
        )
        dividemix_ramp: float = Field(
            1.0, gt=0, le=1, description="share of the steps after the warm-up in which lambda_u rises from 0"
        )
        dividemix_temperature: float = Field(0.5, gt=0, le=1, description="T, of sharpening")
        dividemix_alpha: float = Field(4.0, gt=0, le=100, description="of MixUp's Beta distribution")

        @property
        def dividemix_warm_up_epochs(self) -> int:
            """Epochs before the first division."""
            return max(1, round(self.dividemix_warm_up * self.epochs))

        @model_validator(mode="after")
        def _divides(self) -> DivideMix.Parameters:
            if self.dividemix_warm_up_epochs >= self.epochs:
                raise ValueError(
                    f"dividemix_warm_up: {self.dividemix_warm_up:.3g} of {self.epochs} epochs leave none for the "
                    "division; give more epochs or a smaller share"
                )
            return self

    presets = {"smoke": {"dividemix_warm_up": 0.3}, "quick": {"start_steps": 0}, "small": {"start_steps": 0}}

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, teacher)
        like, second = student.head.weight, copy.deepcopy(student)
        # Random features are no common start: the networks must not begin alike.
        alike = config.start != "random" or config.start_steps
        initialise(second.head if alike else second, self.generator())
        self.networks["second"] = second.to(like.device, like.dtype, memory_format=torch.channels_last)
        self.optimisers["second"] = self.sgd(second, config.lr)
        clean = torch.zeros(len(batches.data.noisy_labels), 2, device=like.device, dtype=like.dtype)
        self.memory = self.networks["memory"] = SampleMemory(clean=clean)
        self._first = self.last_step(config.dividemix_warm_up_epochs)
        self._parts = lru_cache(maxsize=1)(self._parts_of)

    def step(self, t: int) -> dict[str, Tensor]:
        if t < self._first:
            later = t + self.last_step(self.config.epochs)  # other batches than the student's
            return {
                "student_loss": self._warm_up("student", t, t),
                "second_loss": self._warm_up("second", later, t),
            }
        epoch, place = divmod(t, self.batches.steps_per_epoch)
        log = {"correction": torch.zeros(7, dtype=torch.float64, device=self.memory.clean.device)}
        if place == 0:
            log = self._divide()
        generator = self.generator(t)
        for name, (labelled, unlabelled) in self._parts(epoch).items():
            loss = self._mixmatch(name, labelled[place], unlabelled[place], generator, t)
            self.descend(name, [loss], t)
            log[f"{name}_loss"] = loss.detach()
        return log

    def _warm_up(self, name: str, drawn: int, t: int) -> Tensor:
        batch = self.batches.noisy(drawn)
        logits = self._logits(name, batch.x)
        loss = F.cross_entropy(logits, batch.given)
        if self.config.noise_type != "symmetric":
            log_p = logits.log_softmax(dim=1)
            loss = loss + (log_p.exp() * log_p).sum(dim=1).mean()
        self.descend(name, [loss], t)
        return loss.detach()

    def _divide(self) -> dict[str, Tensor]:
        """Steps 1 and 2 for both networks; and what the student's targets are."""
        data, threshold = self.batches.data, self.config.dividemix_threshold
        logits = [self.noisy_logits(self.networks[name]) for name in ("student", "second")]
        for column, values in enumerate(logits):
            losses = F.cross_entropy(values, data.noisy_labels, reduction="none")
            self.memory.clean[:, column] = clean_probabilities(losses, self.config.seed).to(self.memory.clean)
        own, other = (values.softmax(dim=1) for values in logits)
        w, one_hot = self.memory.clean[:, 1:], F.one_hot(data.noisy_labels, own.shape[1])
        kept = labelled_part(w[:, 0], threshold)
        targets = torch.where(kept[:, None], w * one_hot + (1 - w) * own, (own + other) / 2)
        counts = correction_counts(targets, None, data.noisy_labels, data.true_labels)
        return {"correction": counts, "labelled": kept.to(w.dtype).mean()}

    def _parts_of(self, epoch: int) -> dict[str, Tensor]:
        """For each network the labelled and the unlabelled samples of all steps of an epoch, (2, steps, n)."""
        generator = self.generator(self.last_step(self.config.epochs) + epoch)  # beyond the numbers of steps
        steps, n, parts = self.batches.steps_per_epoch, self.config.batch_size // 2, []
        for w in self.memory.clean.cpu().T.flip(0):  # each by the other's
            kept = labelled_part(w, self.config.dividemix_threshold)
            for index in (kept.nonzero()[:, 0], (~kept).nonzero()[:, 0]):
                passes = -(-steps * n // len(index))
                order = torch.cat([index[torch.randperm(len(index), generator=generator)] for _ in range(passes)])
                parts.append(order[: steps * n].view(steps, n))
        student, second = to_device(self.memory.clean.device, torch.stack(parts))[0].split(2)
        return {"student": student, "second": second}

    def _mixmatch(
        self, name: str, labelled: Tensor, unlabelled: Tensor, generator: torch.Generator, t: int
    ) -> Tensor:
        """The loss of one network at step t, on n labelled and n unlabelled samples."""
        n = len(labelled)
        fixed, column = ("second", 1) if name == "student" else ("student", 0)
        x = self.batches.weak(torch.cat([labelled, labelled, unlabelled, unlabelled]), generator)
        with torch.no_grad():
            predicted, own = self._logits(name, x).softmax(dim=1).view(2, 2, n, -1).mean(dim=1)
            self.networks[fixed].eval()
            other = self._logits(fixed, x[2 * n :]).softmax(dim=1).view(2, n, -1).mean(dim=0)
            self.networks[fixed].train()
            w = self.memory.clean[labelled, column, None]
            given = F.one_hot(self.batches.data.noisy_labels[labelled], own.shape[1])
            refined, guessed = w * given + (1 - w) * predicted, (own + other) / 2
            targets = sharpen(torch.cat([refined, refined, guessed, guessed]), self.config.dividemix_temperature)
        share = mixup_share(self.config.dividemix_alpha, generator)
        order = to_device(x.device, torch.randperm(len(x), generator=generator))[0]
        with batch_statistics_only(self.networks[name]):
            logits = self._logits(name, mixed(x, order, share))
        return objective(logits, mixed(targets, order, share), 2 * n, self.unlabelled_weight(t))

    def unlabelled_weight(self, t: int) -> float:
        """lambda_u at step t."""
        steps = self.config.dividemix_ramp * (self.last_step(self.config.epochs) - self._first)
        return self.config.dividemix_weight * min(1.0, (t - self._first) / steps)

    def _logits(self, name: str, x: Tensor) -> Tensor:
        with self.context():
            return self.networks[name](x).to(x.dtype)
