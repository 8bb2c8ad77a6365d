"""Any source of images as an :class:`Images`: arrays, torch data sets, folders."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..data.images import InputError
from .images import Images, of_eight_bits, read_folder


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
    try:
        array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    except (TypeError, ValueError) as error:
        raise InputError(f"{parameter}: the images are no array of numbers ({error})") from None
    if array.ndim not in (3, 4):
        allowed = "(n, h, w), (n, h, w, channels) or (n, channels, h, w)"
        raise InputError(f"{parameter}: images have shape {array.shape}, not {allowed}")
    if array.ndim == 3:
        array = array[..., None]
    elif array.shape[1] in (1, 3) and (array.shape[3] not in (1, 3) or isinstance(images, Tensor)):
        array = array.transpose(0, 2, 3, 1)
    _, *sides, channels = array.shape
    if 0 in sides:
        raise InputError(f"{parameter}: images have no pixels")
    if channels not in (1, 3):
        raise InputError(f"{parameter}: images have {channels} channels, not 1 or 3")
    array = _eight_bits(array, parameter)

    def load(i: int) -> Image.Image:
        return Image.fromarray(array[i, :, :, 0] if channels == 1 else array[i])

    names = list(range(len(array)))
    return Images(parameter, names, _labels(labels, parameter), load, channels, side=max(sides))


def _eight_bits(images: np.ndarray, parameter: str) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "biuf":
        raise InputError(f"{parameter}: the images are no array of numbers, but of {images.dtype}")
    if images.dtype.kind != "f":
        raise InputError(f"{parameter}: images of type {images.dtype} must be uint8, or in [0, 1]")
    if images.size and not (images.min() >= 0 and images.max() <= 1):  # NaN fails, too
        raise InputError(f"{parameter}: floating-point images must be in [0, 1]; scale them, or pass uint8")
    return (images * 255).round().astype(np.uint8)


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
    images = [_one(image, parameter) for image, _ in items]
    labels = [label.item() if isinstance(label, Tensor) and label.ndim == 0 else label for _, label in items]
    sizes = {image.size for image in images}
    channels = 1 if all(image.mode in ("1", "L") for image in images) else 3
    side = max(*sizes.pop()) if len(sizes) == 1 else None
    return Images(
        parameter, list(range(len(items))), _labels(labels, parameter), images.__getitem__, channels, side
    )


def _one(image: Any, parameter: str) -> Image.Image:
    if isinstance(image, Image.Image):
        return of_eight_bits(image, "an image of the data set", parameter)
    if not isinstance(image, Tensor | np.ndarray):
        raise InputError(
            f"{parameter}: the data set's images must be PIL images or arrays, not {type(image).__name__}"
        )
    return _from_arrays(image[None], None, parameter).load(0)
