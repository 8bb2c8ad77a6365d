"""Self-supervised weights as files: where none are there, they are pretrained once; and a card for each file."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.datasets import ImageSet, load_dataset
from ..networks.backbones import build_features
from ..networks.pretrain_config import PretrainConfig, make_pretrain_config
from ..networks.probes import probe
from ..networks.simclr import CHECKPOINT, Pretrained, estimate_seconds, pretrain
from ..networks.weights import start_weights_file
from ..runtime.checkpoint import load_weights, save_weights
from ..runtime.files import writable_folder, write_atomically, write_json
from ..runtime.locks import alone
from ..runtime.parameters import ConfigError
from ..runtime.places import weights_root
from ..runtime.progress import duration, say
from ..runtime.provenance import provenance
from ..runtime.randomness import Stream, torch_generator


def provide(
    dataset: str,
    model: str,
    device: str,
    *,
    folder: str | Path | None = None,
    images: ImageSet | None = None,
    expected: float | None = None,
    show: bool = True,
) -> Path:
    """The file of weights that ``start="simclr"`` takes where none is named; pretrained here if it is not there.

    The pretraining is :func:`emlc_lib.networks.pretrain_config.make_pretrain_config`'s for this data set and
    model, with seed 0. It is announced on stderr with its time, and where it was interrupted it goes on from the
    last epoch's checkpoint.
    Of several processes one pretrains, and the others wait for it.

    Args:
        dataset, model, device: as in :class:`~emlc_lib.networks.pretrain_config.PretrainConfig`.
        folder: of weights, card and checkpoint; None takes :func:`emlc_lib.runtime.places.weights_root`.
        images: the data set, if it is at hand.
        expected: seconds that it takes, where :func:`expected_seconds` has told; None asks it.
        show: whether to announce it and to show progress.

    Raises:
        ConfigError: the folder cannot be written to; nothing has been computed.
        DataUnavailable: the data set is not there and cannot be downloaded.
    """
    file = start_weights_file(dataset, model, folder=folder)
    if file.is_file():
        return file
    check_writable(file.parent)
    with alone(file.with_suffix(".lock"), f"{file.stem} is being pretrained", show=show):
        if not file.is_file():
            config = _begun(make_pretrain_config(dataset=dataset, model=model, device=device), file.parent)
            images = images or load_dataset(dataset)
            if show:
                time = duration(estimate_seconds(config, images.train_images) if expected is None else expected)
                say(f"pretraining {model} on {dataset} by SimCLR, once: {config.epochs} epochs, about {time}")
            pretrain_and_store(config, images, file.parent, show)
    return file


def _begun(config: PretrainConfig, folder: Path) -> PretrainConfig:
    """The configuration, or that in another precision where a machine of that precision has begun it."""
    both = [config, *(config.model_copy(update={"precision": p}) for p in ("bfloat16", "float32"))]
    return next((other for other in both if (folder / other.name / CHECKPOINT).is_file()), config)


def pretrain_and_store(config: PretrainConfig, images: ImageSet, folder: Path, show: bool = True) -> Path:
    """Pretrains, resuming a checkpoint in ``folder``, and writes weights and card there; the weights' file."""
    pretrained = pretrain(config, images.train_images, folder=folder / config.name, show=show)
    if show:
        say("measuring the linear and the kNN probe")
    first, _ = untrained(config, images.train_images.shape[1])
    scores = [probe(features, images) for features in (pretrained.features, first.to(config.device))]
    file = save_with_card(pretrained, config, card(pretrained, config, images, *scores), folder)
    (folder / config.name / CHECKPOINT).unlink()
    return file


def expected_seconds(dataset: str, model: str, device: str) -> float:
    """About how long :func:`provide` pretrains, from a few steps;
    :func:`emlc_lib.networks.simclr.estimate_seconds`."""
    config = make_pretrain_config(dataset=dataset, model=model, device=device)
    return estimate_seconds(config, load_dataset(dataset).train_images)


def check_writable(folder: Path | None = None) -> None:
    """Raises a ConfigError if weights cannot be kept in the folder; None takes :func:`weights_root`."""
    try:
        writable_folder(folder or weights_root(), "weights", make=True)
    except ConfigError as error:
        raise ConfigError(
            f"start: SimCLR weights must be pretrained first, but {error}; let EMLC_DATA name a folder that "
            "can be written to, or give start_weights"
        ) from None


def obtain(
    config: PretrainConfig,
    images: ImageSet,
    *,
    root: str | Path | None = None,
    retrain: bool = False,
    show: bool = True,
) -> Pretrained:
    """The pretraining of a configuration: read back if its weights are there, else trained or resumed.

    That of the usual configuration is :func:`provide`'s, whose weights runs find, in whatever precision they were
    trained.

    Args:
        config: as for :func:`emlc_lib.networks.simclr.pretrain`. images: the data set.
        root: the folder of weights and checkpoints; None takes :func:`emlc_lib.runtime.places.weights_root`.
        retrain: whether to train even if the weights are there; then they are not kept.
    """
    usual = make_pretrain_config(dataset=config.dataset, model=config.model, device=config.device)
    file = start_weights_file(config.dataset, config.model, folder=root)
    if config == usual and not retrain:
        provide(config.dataset, config.model, config.device, folder=root, images=images, show=show)
    beside = file.with_suffix(".json")
    described = json.loads(beside.read_text()) if file.is_file() and beside.is_file() else {}
    same = _without_precision if config.precision == usual.precision else dict
    if not retrain and same(described.get("config", {})) == same(comparable(config)):
        features, _ = untrained(config, images.train_images.shape[1])
        load_weights(features, file)
        return Pretrained(features.to(config.device).eval(), pd.DataFrame(described["log"]), file.name, described)
    folder = weights_root(root) / config.name
    return pretrain(config, images.train_images, folder=folder, show=show)


def untrained(config: PretrainConfig, channels: int):
    """The feature extractor that :func:`emlc_lib.networks.simclr.pretrain` begins with, and the size of its
    embeddings."""
    return build_features(config.model, channels, torch_generator(config.seed, Stream.PRETRAIN_WEIGHTS))


def comparable(config: PretrainConfig) -> dict[str, Any]:
    """A configuration without the device, which says where and not what."""
    return {name: value for name, value in config.identity.items() if name != "device"}


def _without_precision(values: dict[str, Any]) -> dict[str, Any]:
    """:func:`comparable` without the precision, which is the device's where none is given."""
    return {name: value for name, value in values.items() if name != "precision"}


def card(
    pretrained: Pretrained,
    config: PretrainConfig,
    images: ImageSet,
    probes: dict[str, float],
    before: dict[str, float],
) -> dict[str, Any]:
    """What a reader must know of the weights; accuracies in [0, 1], command, hardware and versions the training's.

    Args:
        probes, before: :func:`emlc_lib.networks.probes.probe` of the pretrained and of the untrained features.
    """
    train, test = len(images.train_labels), len(images.test_labels)
    made = {
        "command": command(config),
        "config": comparable(config),
        "provenance": provenance(config.device) | {"processes": 1},  # whichever number waits for it
    } | {name: pretrained.card[name] for name in ("command", "config", "provenance") if pretrained.card}
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
        "command": made["command"],
        "config": made["config"],
        "log": pretrained.epochs.to_dict("list"),
        "provenance": made["provenance"],
    }


def save_pretrained(pretrained: Pretrained, config: PretrainConfig, path: Path) -> None:
    """Writes the feature extractor as safetensors that ``start="simclr"`` takes; large models in 16 bits."""
    metadata = {"model": config.model, "dataset": config.dataset, "config": json.dumps(comparable(config))}
    half = config.model in ("resnet_small", "resnet34", "resnet50")
    save_weights(pretrained.features, path, metadata=metadata, half=half)


def save_with_card(
    pretrained: Pretrained, config: PretrainConfig, described: dict[str, Any], folder: str | Path
) -> Path:
    """Writes card and then weights into ``folder``, under the name by which they are looked for."""
    path = Path(folder) / start_weights_file(config.dataset, config.model).name

    def write(temporary: Path) -> None:
        save_pretrained(pretrained, config, temporary)
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        write_json(path.with_suffix(".json"), described | {"sha256": digest})

    write_atomically(path, write)
    return path


def command(config: PretrainConfig) -> str:
    """The papermill command that makes these weights."""
    shown = {"dataset": config.dataset, "model": config.model, "seed": config.seed, "epochs": config.epochs}
    usual = make_pretrain_config(**shown)
    # A card is for other machines, too, which may have another precision of their own.
    changed = {n: v for n, v in comparable(config).items() if n == "precision" or v != getattr(usual, n)}
    text = ["papermill notebooks/04_pretrain_simclr.ipynb out.ipynb"]
    text += [f"-p {name} {value}" for name, value in shown.items()] + ["-p retrain True"]
    if changed:
        text.append(f"-y '{json.dumps({'options': changed})}'")
    return " ".join(text)
