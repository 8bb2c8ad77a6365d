"""Figure 4: maps of a student's embeddings by t-SNE, and numbers for how well its classes separate."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from ..data.datasets import ImageSet
from ..networks.probes import embeddings
from ..runtime.parameters import ConfigError
from ..runtime.randomness import Stream
from ..training.start import starting_classifier
from .runs import Run
from .studies import Study


def separation(points: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How well classes separate in a space of embeddings or of a map.

    Args:
        points: (n, d). labels: (n,).

    Returns:
        ``silhouette`` in [-1, 1], the mean over samples with Euclidean distances, and ``knn`` in [0, 1], the
        accuracy of ten nearest neighbours in a stratified 5-fold cross-validation.
    """
    return {
        "silhouette": float(silhouette_score(points, labels)),
        "knn": float(cross_val_score(KNeighborsClassifier(10), points, labels, cv=5).mean()),
    }


START = "the start"

# The students of the maps at two rates of noise.
AT_NOISES: Study = {
    f"{name}, {100 * noise:g} % noise": {"noise": noise} | method
    for noise in (0.5, 0.9)
    for name, method in {
        "cross-entropy": {"method": "cross_entropy"},
        "EMLC, k = 1": {"method": "emlc", "k": 1},
    }.items()
}

NUMBER_COLUMNS = ("silhouette", "knn", "map_silhouette", "map_knn", "test_accuracy", "n")
POINT_COLUMNS = ("name", "seed", "label", "class", "x", "y")


def check_number(n: int, images: ImageSet) -> None:
    """Raises a ConfigError unless the first n test images are enough for a 5-fold cross-validation by class."""
    counts = np.bincount(images.test_labels[:n], minlength=len(images.classes))
    if counts.min() < 5:
        raise ConfigError(
            f"n: the first {n} test images have {counts.min()} of class {images.classes[counts.argmin()]!r}; at "
            "least 5 of each are needed"
        )


def map_embeddings(
    named: Sequence[tuple[str, Run]], images: ImageSet, *, n: int = 2000
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Maps the first n test images as the reported student of each run sees them, and as the first run's feature
    extractor did before any training with labels, under the name :data:`START`.

    Embeddings are scaled to unit length, since classifiers trained with cross-entropy spread classes by
    direction and length says little.

    Args:
        named: runs by name.
        n: test images; their order in the data set is random.

    Returns:
        points: one row per run and image: ``name``, ``seed``, ``label``, ``class`` (its name), ``x``, ``y``.
        numbers: one row per run: ``name``, ``seed``, ``digest``, ``test_accuracy``, and :func:`separation` of the
        embeddings and, with the prefix ``map_``, of the map. The start has no test accuracy.

    Raises:
        FileNotFoundError: the self-supervised weights that the first run began with are gone.
    """
    first = named[0][1]
    shape = first.result["n_classes"], first.result["channels"]
    before = starting_classifier(first.config, *shape, Stream.STUDENT_WEIGHTS).features
    mapped = [(START, first, before, float("nan"))]
    mapped += [(name, run, run.student().features, run.result["test_accuracy"]) for name, run in named]
    labels = images.test_labels[:n]
    classes = np.asarray(images.classes)[labels]
    points, numbers = [], []
    for name, run, features, accuracy in mapped:
        vectors = normalize(embeddings(features, images.test_images[:n], images.name))
        tsne = TSNE(perplexity=30.0, init="pca", random_state=run.config.seed)
        flat = tsne.fit_transform(vectors)
        map_ = pd.DataFrame({"name": name, "seed": run.config.seed, "label": labels, "class": classes})
        points.append(map_.assign(x=flat[:, 0], y=flat[:, 1]).round(2))
        in_map = {f"map_{key}": value for key, value in separation(flat, labels).items()}
        numbers.append(
            {"name": name, "seed": run.config.seed, "digest": run.digest}
            | {"test_accuracy": accuracy, "n": len(labels)}
            | separation(vectors, labels)
            | in_map
        )
    return pd.concat(points, ignore_index=True), pd.DataFrame(numbers).round(4)


def captions(numbers: pd.DataFrame) -> dict[str, str]:
    """What stands below each map, by name: the separation and test accuracy of its first row.

    Args:
        numbers: those of :func:`map_embeddings`.
    """
    first = numbers.groupby("name", sort=False).first()
    return {
        row.Index: f"silhouette {row.silhouette:.3f}, 10-NN {100 * row.knn:.1f} %"
        + ("" if pd.isna(row.test_accuracy) else f", test {100 * row.test_accuracy:.1f} %")
        for row in first.itertuples()
    }
