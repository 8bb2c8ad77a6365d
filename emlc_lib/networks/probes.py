"""How good features are before fine-tuning: a linear and a nearest-neighbour classifier on frozen embeddings."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import Tensor, nn

from ..data.augment import normalise
from ..data.datasets import DATASETS, ImageSet
from ..data.experiment_data import on_device
from ..runtime.execution import matmul_precision

BATCH = 500


@torch.no_grad()
@matmul_precision("float32")
def embeddings(features: nn.Module, images: Tensor, dataset: str) -> np.ndarray:
    """Embeddings (n, d) float32 of whole images (n, channels, h, w) uint8, without augmentation.

    The network is left in evaluation mode.
    """
    features.eval()
    device = next(features.parameters()).device
    scale = on_device(DATASETS[dataset].constants, device)
    parts = [features(normalise(part.to(device), *scale)) for part in images.split(BATCH)]
    return torch.cat(parts).cpu().numpy()


def linear_probe(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Test accuracy in [0, 1] of multinomial logistic regression on standardised embeddings.

    The usual linear evaluation protocol, solved to the optimum by scikit-learn (L2 penalty, C = 1) in place of
    SGD, so that it depends on no learning rate.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(probe.fit(train, train_labels).score(test, test_labels))


def knn_probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, *, k: int = 200,
    temperature: float = 0.1,
) -> float:  # fmt: skip
    """Test accuracy in [0, 1] of the weighted k-nearest-neighbour vote of Wu et al. (2018).

    Neighbours by cosine similarity s, each voting with exp(s / temperature).
    """
    k = min(k, len(train))
    probe = make_pipeline(
        Normalizer(),
        # On the unit sphere |a - b|^2 = 2 - 2 s, so that Euclidean neighbours are cosine's.
        KNeighborsClassifier(k, weights=lambda distance: np.exp((1 - distance**2 / 2) / temperature)),
    )
    return float(probe.fit(train, train_labels).score(test, test_labels))


def nearest(train: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Indices (n, k) of the k rows of ``train`` with the highest cosine to each of n queries, highest first."""
    return NearestNeighbors(n_neighbors=k, metric="cosine").fit(train).kneighbors(queries, return_distance=False)


def probe(features: nn.Module, images: ImageSet) -> dict[str, float]:
    """Both probes, fitted on the training set's true labels and scored on the test set.

    Returns:
        ``linear`` and ``knn``, accuracies in [0, 1].
    """
    train = embeddings(features, images.train_images, images.name)
    test = embeddings(features, images.test_images, images.name)
    sides = train, images.train_labels, test, images.test_labels
    return {"linear": linear_probe(*sides), "knn": knn_probe(*sides)}
