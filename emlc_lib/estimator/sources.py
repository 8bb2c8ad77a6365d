"""Any source of images as an :class:`Images`: arrays, torch data sets, folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..data.images import InputError
from .images import Images, eight_bits, read_folder


def as_images(source: Any, parameter: str, *, labelled: bool) -> Images:
    """Images of any supported source.

    Args:
        source: one of

            * arrays: ``(images, labels)``, or images alone if ``labelled`` is False. Images are (n, h, w),
              (n, h, w, channels) or (n, channels, h, w), uint8, or floating-point numbers in [0, 1] (which are
              rounded to 8 bits);
            * a torch ``Dataset`` of (image, label), the image a ``PIL.Image`` or one such array;
            * the path of a folder with one subfolder of images per class; of any folder of images if ``labelled``
              is False;
            * an :class:`Images`.
        parameter: its name, for messages.
        labelled: whether labels are needed.

    Raises:
        InputError: it is empty, of another form, or labels and images are not equally many.
    """
    if isinstance(source, Images):
        images = source
    elif isinstance(source, str | Path):
        images = read_folder(source, parameter, labelled=labelled)
    elif isinstance(source, Dataset):
        images = _from_dataset(source, parameter)
    elif isinstance(source, tuple) and len(source) == 2:
        images = _from_arrays(source[0], source[1], parameter)
    elif not labelled:
        images = _from_arrays(source, None, parameter)
    else:
        raise InputError(
            f"{parameter}: needs (images, labels), a torch Dataset or the path of a folder, "
            f"not {type(source).__name__}"
        )
    if not len(images):
        raise InputError(f"{parameter}: there are no images")
    if labelled and images.labels is None:
        raise InputError(f"{parameter}: there are no labels")
    return images


def _from_arrays(images: Any, labels: Any, parameter: str) -> Images:
    if hasattr(images, "__len__") and hasattr(labels, "__len__") and len(images) != len(labels):
        raise InputError(f"{parameter}: there are {len(images)} images but {len(labels)} labels")
    if isinstance(images, Tensor):
        array = images.detach().cpu()
    else:
        try:
            array = torch.from_numpy(np.ascontiguousarray(images))
        except (TypeError, ValueError) as error:
            raise InputError(f"{parameter}: the images are no array of numbers ({error})") from None
    if array.ndim not in (3, 4):
        raise InputError(
            f"{parameter}: images have shape {tuple(array.shape)}, not (n, h, w), (n, h, w, channels) or "
            "(n, channels, h, w)"
        )
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[1] not in (1, 3) or (array.shape[3] in (1, 3) and not isinstance(images, Tensor)):
        array = array.permute(0, 3, 1, 2)
    if 0 in array.shape[2:]:
        raise InputError(f"{parameter}: images have no pixels")
    if array.shape[1] not in (1, 3):
        raise InputError(f"{parameter}: images have {array.shape[1]} channels, not 1 or 3")
    array = _eight_bits(array, parameter)
    return Images(
        parameter, list(range(len(array))), _labels(labels, parameter), lambda i: array[i],
        channels=array.shape[1], side=max(array.shape[2:]),
    )  # fmt: skip


def _eight_bits(images: Tensor, parameter: str) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise InputError(f"{parameter}: images of type {images.dtype} must be uint8, or in [0, 1]")
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):  # NaN fails, too
        raise InputError(f"{parameter}: floating-point images must be in [0, 1]; scale them, or pass uint8")
    return (images * 255).round().to(torch.uint8)


def _labels(labels: Any, parameter: str) -> np.ndarray | None:
    if labels is None:
        return None
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1:
        raise InputError(f"{parameter}: labels have shape {array.shape}, not (n,)")
    if array.dtype.kind == "O" and all(isinstance(label, str) for label in array):
        array = array.astype(str)
    if len(array) and array.dtype.kind not in "biuU":
        raise InputError(f"{parameter}: labels must be strings or integers, none of them missing")
    return array


def _from_dataset(dataset: Dataset, parameter: str) -> Images:
    if not hasattr(dataset, "__len__"):
        raise InputError(f"{parameter}: the data set must have a length")
    # Passed through once: a label often comes only with its image.
    items = [dataset[i] for i in range(len(dataset))]
    if not all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
        raise InputError(f"{parameter}: the data set's items must be (image, label)")
    loaded = [_one(image, parameter) for image, _ in items]
    labels = [label.item() if isinstance(label, Tensor) and label.ndim == 0 else label for _, label in items]
    sizes = {image.shape[1:] if isinstance(image, Tensor) else image.size[::-1] for image in loaded}
    grey = all(image.shape[0] == 1 if isinstance(image, Tensor) else image.mode in ("1", "L") for image in loaded)
    return Images(
        parameter, list(range(len(items))), _labels(labels, parameter), loaded.__getitem__,
        channels=1 if grey else 3, side=max(*sizes.pop()) if len(sizes) == 1 else None,
    )  # fmt: skip


def _one(image: Any, parameter: str) -> Image.Image | Tensor:
    if isinstance(image, Image.Image):
        return eight_bits(image, "an image of the data set", parameter)
    if not isinstance(image, Tensor | np.ndarray):
        raise InputError(
            f"{parameter}: the data set's images must be PIL images or arrays, not {type(image).__name__}"
        )
    return _from_arrays(image[None], None, parameter).load(0)
