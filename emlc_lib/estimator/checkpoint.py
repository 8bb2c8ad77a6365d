"""The folder of a fit's checkpoints, which knows what it belongs to."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..data.experiment_data import ExperimentData
from ..runtime.checkpoint import CheckpointError
from ..runtime.files import as_path, write_json
from ..training.config import Config
from ..training.trainer import CHECKPOINT

IDENTITY = "fit.json"


def claim(checkpoint: str | Path | None, config: Config, data: ExperimentData, **parameters: Any) -> Path | None:
    """The folder, made if it is not there, if a fit may be begun or resumed in it; None for None.

    What the result depends on is kept in it as JSON, images and labels as SHA-256.

    Args:
        checkpoint: the folder.
        config: of the training.
        data: its images and labels.
        parameters: whatever else the result depends on, ready for JSON.

    Raises:
        CheckpointError: another fit has begun in the folder; the message says what differs.
    """
    if checkpoint is None:
        return None
    folder = as_path(checkpoint, "checkpoint")
    mine = json.loads(json.dumps(parameters | config.model_dump() | _hashes(data)))
    saved = _read(folder / IDENTITY)
    if saved is None and (folder / CHECKPOINT).exists():
        raise CheckpointError(f"checkpoint: {folder} is of another kind of training; use another folder")
    differing = [name for name in mine if saved is not None and saved.get(name) != mine[name]]
    if differing:
        raise CheckpointError(
            f"checkpoint: {folder} belongs to another fit (it differs in {', '.join(differing)}); "
            "use another folder, or delete it to start over"
        )
    if saved is None:
        write_json(folder / IDENTITY, mine)
    return folder


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint: {file} cannot be read ({error}); use another folder") from None


def _hashes(data: ExperimentData) -> dict[str, Any]:
    tensors = {
        "noisy images": data.noisy_images, "noisy labels": data.noisy_labels,
        "clean images": data.clean_images, "clean labels": data.clean_labels,
    }  # fmt: skip
    hashes = {name: hashlib.sha256(value.cpu().numpy().tobytes()).hexdigest() for name, value in tensors.items()}
    return hashes | {"classes": data.classes}
