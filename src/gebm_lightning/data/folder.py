"""Any tree of images, and CelebA's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from ..errors import UserError
from .datasets import BatchDataset, held_out
from .images import ImageFiles, image_files


@dataclass(frozen=True)
class Folder:
    """Images below `root`: in its folders train, val and test where it has them, else cut by a fixed permutation.

    Without those folders a tenth (at most 10,000) is the test split and at most `num_val` the validation split. The folder
    directly above an image, if it is not the root itself, is its class; classes are numbered in the order of their names.

    Args:
        root: the folder.
        size: pixels of a side after resizing.
        channels: 3 for RGB, 1 for grey.
        crop: side of the central square that is kept; None for the largest.
        skip_corrupt: drop and count images that cannot be decoded or are too small.
        num_val: size of the validation split where it has to be cut.
    """

    root: str
    size: int = 32
    channels: int = 3
    crop: int | None = None
    skip_corrupt: bool = False
    num_val: int = 1000
    name: ClassVar[str] = "folder"

    def split(self, name: str) -> BatchDataset:
        root = Path(self.root)
        given = {part for part in ("train", "val", "test") if (root / part).is_dir()}
        if {"train", "test"} <= given:
            if name == "val" and "val" not in given:
                return held_out(self._files(root / "train"), "val", {"val": self.num_val})
            whole = self._files(root / name)
            return held_out(whole, "train", {"val": self.num_val}) if name == "train" and "val" not in given else whole
        whole = self._files(root)
        n = len(whole)
        if n < 20:
            raise UserError(
                f"the folder {root.absolute()} has only {n} usable images: too few to cut into train, val and test"
            )
        return held_out(whole, name, {"test": min(n // 10, 10_000), "val": min(n // 10, self.num_val)})

    def _files(self, root: Path) -> ImageFiles:
        files = image_files(root)
        classes = sorted({p.parent.name for p in files if p.parent != root})
        labels = None
        if classes and all(p.parent != root for p in files):
            labels = torch.tensor([classes.index(p.parent.name) for p in files])
        return ImageFiles(files, labels, self.size, self.channels, self.crop, self.skip_corrupt)


@dataclass(frozen=True)
class CelebA:
    """CelebA's aligned faces with their own partition: `root/img_align_celeba/*.jpg`, `root/list_eval_partition.txt`.

    Args:
        root: the folder with both.
        size: pixels of a side.
        crop: side of the central square that is kept, of 178×218 pixels.
    """

    root: str
    size: int = 32
    crop: int = 148
    name: ClassVar[str] = "celeba"

    def split(self, name: str) -> BatchDataset:
        root = Path(self.root)
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
