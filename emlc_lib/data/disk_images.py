"""Images that stay on disk until a batch needs them, behind the indexing that tensors have."""

from __future__ import annotations

from PIL import Image
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from torch import Tensor
import numpy as np
import os
import torch
from ..runtime.parameters import DataUnavailable


# Pillow releases the interpreter lock while it decodes and resizes, so threads are enough.
THREADS = min(32, os.cpu_count() or 1)


def open_image(path: Path, *, resize: int | None, crop: int) -> Image.Image:
    """An RGB image of ``crop`` x ``crop`` pixels: squeezed to a square of side ``resize``, then its centre.

    Args:
        path: of an image in any format that Pillow reads.
        resize: side of the square before cropping (bilinear, antialiased); None for files that are cropped.
        crop: side of the result.

    Raises:
        DataUnavailable: there is no such file, it cannot be decoded, or it is not cropped although it should be.
    """
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataUnavailable(f"{path} cannot be read as an image ({type(error).__name__}: {error})") from error
    if resize is not None:
        image = image.resize((resize, resize), Image.Resampling.BILINEAR)
        border = (resize - crop) // 2
        image = image.crop((border, border, border + crop, border + crop))
    if image.size != (crop, crop):
        raise DataUnavailable(f"{path} has {image.width} x {image.height} pixels instead of {crop} x {crop}")
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
            DataUnavailable: a file is missing or damaged; the message names it.
        """
        wanted, (ahead, futures) = self._numbers(index), self._ahead
        if not wanted:
            return torch.empty((0, *self.shape[1:]), dtype=torch.uint8, device=self.device)
        if wanted != ahead:
            futures = [self._pool.submit(self._decode, i) for i in wanted]
        else:
            self._ahead = ((), [])
        return torch.stack([future.result() for future in futures]).to(self.device)

    def prefetch(self, index: Tensor | slice) -> None:
        """Begins to decode the batch that will be asked for next; any other that was begun is dropped."""
        wanted = self._numbers(index)
        if wanted != self._ahead[0]:
            for future in self._ahead[1]:
                future.cancel()
            self._ahead = (wanted, [self._pool.submit(self._decode, i) for i in wanted])

    def _numbers(self, index: Tensor | slice) -> tuple[int, ...]:
        return tuple(range(*index.indices(len(self))) if isinstance(index, slice) else index.tolist())

    def _decode(self, i: int) -> Tensor:
        image = open_image(Path(self.paths[i]), resize=self.resize, crop=self.side)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
