"""Image files and bytes to uint8 arrays of one shape; trees of image files as a dataset."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import UserError, check_number, first_line
from .batch import Batch
from .datasets import BatchDataset

EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


def check_settings(size: object, channels: object = 3) -> None:
    """Raise a UserError unless images can have this size and these channels."""
    check_number("data.size", size, low=1, integer=True)
    if isinstance(channels, bool) or channels not in (1, 3):
        raise UserError(f"data.channels must be 1 for grey or 3 for RGB, not {channels}")


def decode(source: Path | bytes, size: int, channels: int, crop: int | None = None, name: object = None) -> Tensor:
    """A (channels, size, size) uint8 image: the central square, of side `crop` if given, resized with antialiasing.

    Transparency is laid on black; 16 bits of grey become 8; grey becomes RGB, or colour grey, as `channels` asks.

    Raises:
        UserError: the image cannot be decoded, or is smaller than the crop or the size.
    """
    name = name or source
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            image: Image.Image = opened
            if opened.mode.startswith("I"):
                # 16 bits of grey: PIL would cut off what is above 255.
                image = Image.fromarray((np.asarray(opened, np.int64) // 257).clip(0, 255).astype(np.uint8))
            elif "A" in opened.getbands() or "transparency" in opened.info:
                image = opened.convert("RGBA")
            if image.mode == "RGBA":
                image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
            image = image.convert("L" if channels == 1 else "RGB")
    except UnidentifiedImageError as error:
        raise UserError(f"the image {name} cannot be decoded: it is of no known kind") from error
    except Exception as error:
        raise UserError(f"the image {name} cannot be decoded: {first_line(error)}") from error
    side = crop or min(image.size)
    if min(image.size) < max(side, size):
        raise UserError(
            f"the image {name} has {image.size[0]}×{image.size[1]} pixels, fewer than the {max(side, size)} needed"
        )
    left, top = (image.size[0] - side) // 2, (image.size[1] - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    array = np.array(image, dtype=np.uint8)
    return torch.from_numpy(array[None] if channels == 1 else array.transpose(2, 0, 1).copy())


def image_files(root: Path) -> list[Path]:
    """All image files below a folder, in the order of their paths.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder of images {root.absolute()}: set data.root")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
    if not files:
        raise UserError(f"the folder {root.absolute()} has no images in it ({', '.join(sorted(EXTENSIONS))})")
    return files


class ImageFiles(BatchDataset):
    """Image files, decoded when they are fetched.

    Args:
        files: their paths.
        labels: (n,) class numbers, or None.
        size: pixels of a side.
        channels: 1 or 3.
        crop: side of the central square that is kept before resizing; None for the largest.
        skip_corrupt: decode every file once now, drop those that fail, and say how many; else the first failure is an error.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: Tensor | None,
        size: int,
        channels: int = 3,
        crop: int | None = None,
        skip_corrupt: bool = False,
    ) -> None:
        self.files, self.y = list(files), labels
        self.size, self.channels, self.crop = size, channels, crop
        self.shape = (channels, size, size)
        self.skipped: list[Path] = []
        if skip_corrupt:
            good = [self._decodes(path) for path in self.files]
            self.skipped = [path for path, fine in zip(self.files, good, strict=True) if not fine]
            self.files = [path for path, fine in zip(self.files, good, strict=True) if fine]
            self.y = None if labels is None else labels[torch.tensor(good)]
            if self.skipped:
                print(
                    f"skipped {len(self.skipped)} of {len(good)} images that cannot be used, the first is {self.skipped[0]}"
                )
            if not self.files:
                raise UserError(f"none of the {len(good)} images can be used, the first is {self.skipped[0]}")

    def _decodes(self, path: Path) -> bool:
        try:
            decode(path, self.size, self.channels, self.crop)
        except UserError:
            return False
        return True

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        x = torch.stack([decode(self.files[i], self.size, self.channels, self.crop) for i in indices])
        return Batch(x, None if self.y is None else self.y[torch.as_tensor(indices)])
