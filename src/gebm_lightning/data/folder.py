"""Any tree of images, and CelebA's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch

from ..errors import UserError, check_number, check_path
from .datasets import BatchDataset, held_out
from .images import ImageFiles, check_settings, image_files


@dataclass(frozen=True)
class Folder:
    """Images below `root`: in its folders train, val and test where it has them, else cut by a fixed permutation.

    Of folders `train` and `val` alone, `val` is the test split, and validation images are cut from `train`. Without either,
    a tenth (at most 10,000) is the test split. Where every image lies in a folder below the root (or below its split's
    folder), the first of these is its class; classes are numbered by name, over all splits.

    Args:
        root: the folder.
        size: pixels of a side after resizing.
        channels: 3 for RGB, 1 for grey.
        crop: side of the central square that is kept; None for the largest.
        skip_corrupt: drop and count images that cannot be decoded or are too small.
        num_val: size of the validation split where it has to be cut, at most a tenth.
    """

    root: str
    size: int = 32
    channels: int = 3
    crop: int | None = None
    skip_corrupt: bool = False
    num_val: int = 1000
    name: ClassVar[str] = "folder"
    _read: dict[Path, ImageFiles] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_settings(self.size, self.channels)
        if self.crop is not None:
            check_number("data.source.crop", self.crop, low=1, integer=True)

    def split(self, name: str) -> BatchDataset:
        root = check_path("data.root", self.root)
        given = [part for part in ("train", "val", "test") if (root / part).is_dir()]
        held = given[-1] if "train" in given and len(given) > 1 else None
        if held is None:
            whole = self._files(root, [root])
            n = len(whole)
            if n < 20:
                raise UserError(
                    f"the folder {root.absolute()} has only {n} usable images: too few to cut into train, val and test"
                )
            return held_out(whole, name, {"test": min(n // 10, 10_000), "val": self.num_val})
        homes = [root / part for part in given]
        if name == "test":
            return self._files(root / held, homes)
        if len(given) == 3:
            return self._files(root / name, homes)
        return held_out(self._files(root / "train", homes), name, {"val": self.num_val})

    def _files(self, home: Path, homes: list[Path]) -> ImageFiles:
        if home not in self._read:
            files = image_files(home)
            known = [_class(path, h) for h in homes for path in (files if h == home else image_files(h))]
            labels = None
            if None not in known:
                classes = sorted({c for c in known if c is not None})
                labels = torch.tensor([classes.index(str(_class(path, home))) for path in files])
            self._read[home] = ImageFiles(files, labels, self.size, self.channels, self.crop, self.skip_corrupt)
        return self._read[home]


def _class(path: Path, home: Path) -> str | None:
    parts = path.relative_to(home).parts
    return parts[0] if len(parts) > 1 else None


@dataclass(frozen=True)
class CelebA:
    """CelebA's aligned faces with their own partition: `root/img_align_celeba/*.jpg`, `root/list_eval_partition.txt`.

    Args:
        root: the folder with both.
        size: pixels of a side.
        crop: side of the central square that is kept, of 178×218 pixels; None for the largest.
    """

    root: str
    size: int = 32
    crop: int | None = 148
    name: ClassVar[str] = "celeba"

    def __post_init__(self) -> None:
        check_settings(self.size)
        if self.crop is not None:
            check_number("data.source.crop", self.crop, low=1, integer=True)

    def split(self, name: str) -> BatchDataset:
        root = check_path("data.root", self.root)
        table = root / "list_eval_partition.txt"
        if not table.is_file():
            raise UserError(
                f"CelebA is not at {root.absolute()}: list_eval_partition.txt is missing; download img_align_celeba.zip and that "
                "file from the authors' page, unpack them there, and set data.root"
            )
        wanted = {"train": "0", "val": "1", "test": "2"}[name]
        rows = [line.split() for line in table.read_text().splitlines() if line.strip()]
        files = [root / "img_align_celeba" / row[0] for row in rows if row[-1] == wanted]
        if not files or not files[0].is_file():
            raise UserError(f"CelebA's {name} images are not in {root.absolute() / 'img_align_celeba'}")
        return ImageFiles(files, None, self.size, 3, self.crop)
