"""Image files, and images that stay on disk until a batch needs them, behind the indexing that tensors have."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..runtime.parameters import Expected

# Pillow releases the interpreter lock while it decodes and resizes, so threads are enough.
THREADS = min(32, os.cpu_count() or 1)


class InputError(Expected, ValueError):
    """Images or labels cannot be used. The message begins with the name of the parameter they were given by."""


@contextmanager
def opened(path: Path, parameter: str) -> Iterator[Image.Image]:
    """An image file, in any format that Pillow reads; what is done with it in the block may decode it.

    Raises:
        InputError: there is no such file, or it cannot be decoded.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")  # to open a pipe would wait for ever
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{parameter}: {path} cannot be read as an image ({reason})") from error


def open_square(path: Path, *, resize: int | None, crop: int) -> Image.Image:
    """An RGB image of ``crop`` x ``crop`` pixels: squeezed to a square of side ``resize``, then its centre.

    Args:
        resize: side of the square before cropping (bilinear, antialiased); None for files that are cropped.
        crop: side of the result.

    Raises:
        InputError: the file cannot be read, or is not cropped although it should be.
    """
    with opened(path, "dataset") as file:
        image = file.convert("RGB")
    if resize is not None:
        image = image.resize((resize, resize), Image.Resampling.BILINEAR)
        border = (resize - crop) // 2
        image = image.crop((border, border, border + crop, border + crop))
    if image.size != (crop, crop):
        size = f"{image.width} x {image.height}"
        raise InputError(f"dataset: {path} has {size} pixels instead of {crop} x {crop}")
    return image


class DiskImages:
    """n images in files, indexed like a uint8 tensor of shape (n, 3, side, side).

    What indexing returns is such a tensor on ``device``. Files are decoded by threads, every time anew: the
    memory in use is that of the batches. :meth:`prefetch` starts on a batch before it is asked for.

    Args:
        paths: n files.
        side: of the images in pixels, after resizing and cropping.
        resize: side of the square that is cropped; None for files that have their size already.
        device: where batches go.
    """

    def __init__(self, paths: Sequence[Path | str], *, side: int, resize: int | None, device: str = "cpu"):
        self.paths, self.side, self.resize, self.device = paths, side, resize, device
        self._pool = ThreadPoolExecutor(THREADS)
        self._ahead: tuple[tuple[int, ...], list[Future]] = ((), [])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, 3, side, side)."""
        return len(self.paths), 3, self.side, self.side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """uint8 (len(index), 3, side, side) for integer indices (m,) or a slice.

        Raises:
            InputError: a file is missing or damaged; the message names it.
        """
        wanted, (ahead, futures) = self._numbers(index), self._ahead
        if not wanted:
            return torch.empty((0, *self.shape[1:]), dtype=torch.uint8, device=self.device)
        if wanted != ahead:
            futures = self._begun(wanted)
        else:
            self._ahead = ((), [])
        return torch.stack([future.result() for future in futures]).to(self.device)

    def prefetch(self, index: Tensor | slice) -> None:
        """Begins to decode the batch that will be asked for next; any other that was begun is dropped."""
        wanted = self._numbers(index)
        if wanted != self._ahead[0]:
            for future in self._ahead[1]:
                future.cancel()
            self._ahead = (wanted, self._begun(wanted))

    def _numbers(self, index: Tensor | slice) -> tuple[int, ...]:
        return tuple(range(*index.indices(len(self))) if isinstance(index, slice) else index.tolist())

    def _begun(self, wanted: tuple[int, ...]) -> list[Future]:
        return [self._pool.submit(self._decode, i) for i in wanted]

    def _decode(self, i: int) -> Tensor:
        image = open_square(Path(self.paths[i]), resize=self.resize, crop=self.side)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
