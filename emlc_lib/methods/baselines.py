"""The two baselines without label correction: cross-entropy on noisy labels, and on the clean set alone."""

from torch import Tensor
from torch.nn import functional as F

from .base import Method


class CrossEntropy(Method, name="cross_entropy", label="cross-entropy, noisy labels", parallel=True):
    """Empirical risk minimisation (eq. 2) on the noisy labels as they are given."""

    look = ("#666666", "<")

    def step(self, t: int) -> dict[str, Tensor]:
        batch = self.batches.noisy(t)
        loss = F.cross_entropy(self.logits(batch.x), batch.given)
        self.descend("student", [loss], t)
        return {"student_loss": loss.detach()}


class CleanOnly(Method, name="clean_only", label="clean labels only", parallel=True, sees_noise=False):
    """Cross-entropy on the clean set, with as many steps of the same batch size as the other methods take.

    The small set is passed through many times, with its full augmentation.
    """

    look = ("#666666", "D")

    def step(self, t: int) -> dict[str, Tensor]:
        size = min(self.config.batch_size, len(self.batches.data.clean_labels))
        batch = self.batches.clean(t, size)
        loss = F.cross_entropy(self.logits(batch.x), batch.labels)
        self.descend("student", [loss], t)
        return {"student_loss": loss.detach()}
