"""Self-supervised weights as files: those that come with the package, and a card for each."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from .checkpoint import write_atomically, write_json
from .data import ImageSet
from .models import build_features, load_weights, save_weights
from .randomness import Stream, torch_generator
from .runs import provenance, runs_root
from .simclr import PretrainConfig, Pretrained, make_pretrain_config, pretrain
from .start_weights import start_weights_file


def obtain(
    config: PretrainConfig,
    images: Tensor,
    *,
    root: str | Path | None = None,
    retrain: bool = False,
    show: bool = True,
) -> Pretrained:
    """The pretraining of a configuration: from the package if its weights are there, else trained or resumed.

    Args:
        config, images: as for :func:`emlc_lib.simclr.pretrain`.
        root: the folder of runs, where checkpoints are kept; None takes :func:`emlc_lib.runs.runs_root`.
        retrain: whether to train even if the package has the weights.
    """
    file = start_weights_file(config.dataset, config.model, None)
    card = json.loads(file.with_suffix(".json").read_text()) if file.is_file() else {}
    if not retrain and card.get("config") == comparable(config):
        features, _ = untrained(config, images.shape[1])
        load_weights(features, file)
        return Pretrained(features.to(config.device).eval(), pd.DataFrame(card["log"]), source=file.name)
    return pretrain(config, images, folder=Path(root or runs_root()) / config.name, show=show)


def untrained(config: PretrainConfig, channels: int):
    """The feature extractor that :func:`emlc_lib.simclr.pretrain` begins with, and the size of its embeddings."""
    return build_features(config.model, channels, torch_generator(config.seed, Stream.PRETRAIN_WEIGHTS))


def comparable(config: PretrainConfig) -> dict[str, Any]:
    """A configuration without the device, which says where and not what."""
    return {name: value for name, value in config.model_dump().items() if name != "device"}


def card(
    pretrained: Pretrained,
    config: PretrainConfig,
    images: ImageSet,
    probes: dict[str, float],
    before: dict[str, float],
) -> dict[str, Any]:
    """What a reader must know of the weights; accuracies in [0, 1].

    Args:
        probes, before: :func:`emlc_lib.probes.probe` of the pretrained and of the untrained features.
    """
    train, test = len(images.train_labels), len(images.test_labels)
    return {
        "what": "feature extractor of emlc_lib's model of that name, pretrained by SimCLR; no classifier",
        "data": f"{images.name}: all {train:,} training images, without labels. The probes are fitted on them "
        f"with their true labels and scored on the {test:,} test images.",
        "model": config.model,
        "seed": config.seed,
        "epochs": len(pretrained.epochs),
        "minutes": round(float(pretrained.epochs["seconds"].iloc[-1]) / 60, 1),
        "linear": round(probes["linear"], 4),
        "knn": round(probes["knn"], 4),
        "untrained": {name: round(value, 4) for name, value in before.items()},
        "command": command(config),
        "config": comparable(config),
        "log": pretrained.epochs.to_dict("list"),
        "provenance": provenance(config.device),
    }


def save_pretrained(pretrained: Pretrained, config: PretrainConfig, path: Path) -> None:
    """Writes the feature extractor as safetensors that ``start="simclr"`` takes; large models in 16 bits."""
    metadata = {"model": config.model, "dataset": config.dataset, "config": json.dumps(comparable(config))}
    half = config.model in ("resnet34", "resnet50")
    write_atomically(path, lambda p: save_weights(pretrained.features, p, metadata=metadata, half=half))


def save_with_card(
    pretrained: Pretrained, config: PretrainConfig, described: dict[str, Any], folder: Path
) -> Path:
    """Writes weights and card into ``folder`` under the name by which the package looks for them."""
    path = Path(folder) / start_weights_file(config.dataset, config.model, None).name
    save_pretrained(pretrained, config, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    write_json(path.with_suffix(".json"), described | {"sha256": digest})
    return path


def command(config: PretrainConfig) -> str:
    """The papermill command that makes these weights."""
    shown = {"dataset": config.dataset, "model": config.model, "seed": config.seed, "epochs": config.epochs}
    usual = make_pretrain_config(**shown)
    changed = {n: v for n, v in comparable(config).items() if v != getattr(usual, n)}
    text = ["papermill notebooks/00_pretrain_simclr.ipynb out.ipynb"]
    text += [f"-p {name} {value}" for name, value in shown.items()] + ["-p retrain True"]
    if changed:
        text.append(f"-y '{json.dumps({'options': changed})}'")
    return " ".join(text)
