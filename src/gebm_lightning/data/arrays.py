"""Data sets that fit in memory: npz files, ImageNet-32's, and those that torchvision knows."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError, check_path, first_line
from .datasets import ArrayDataset, BatchDataset, held_out
from .images import check_settings


def resize(x: Tensor, size: int) -> Tensor:
    """uint8 images (n, C, h, w) at size×size, bilinear with antialiasing, rounded; unchanged if they have that size."""
    if x.shape[-2:] == (size, size):
        return x
    parts = [F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True) for part in x.split(4096)]
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])


def load_npz(path: Path, advice: str) -> dict[str, np.ndarray]:
    """The arrays of an npz file, no pickles.

    Raises:
        UserError: it is missing, damaged, or holds objects.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path.absolute()}: {advice}")
    try:
        arrays = np.load(path, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise UserError(f"{path} holds one array without a name: an npz is needed, as np.savez writes it")
        with arrays:
            return {key: arrays[key] for key in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error, EOFError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read as an npz of arrays: {first_line(error)}") from error


def channels_first(path: Path, key: str, x: np.ndarray) -> Tensor:
    """uint8 images (n, H, W, C) or (n, H, W) as a tensor (n, C, H, W).

    Raises:
        UserError: another dtype or shape.
    """
    if x.dtype != np.uint8:
        raise UserError(f"{key} in {path} has dtype {x.dtype}: images are uint8")
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] not in (1, 3)):
        raise UserError(f"{key} in {path} has shape {x.shape}: images are (n, H, W), (n, H, W, 1) or (n, H, W, 3)")
    return torch.from_numpy(x[:, None] if x.ndim == 3 else np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


@dataclass(frozen=True)
class Npz:
    """uint8 arrays in one npz file: `train_x`, `test_x` (and `val_x`), or `x` alone, which a fixed permutation cuts.

    Labels are `train_y` … or `y`. Images are (n, H, W, C). Without `val_x`, `num_val` images of the train part are kept
    for validation; without `test_x` a tenth of all, at most 10,000, is the test split.

    Args:
        path: the file.
        size: pixels of a side; images of another size are resized.
        num_val: size of the validation split where it has to be cut.
    """

    path: str
    size: int = 32
    num_val: int = 1000
    name: ClassVar[str] = "npz"
    _read: dict[str, ArrayDataset] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_settings(self.size)

    def split(self, name: str) -> BatchDataset:
        path = check_path("data.path", self.path)
        arrays = load_npz(path, "set data.path")
        if "train_x" in arrays and "test_x" in arrays:
            if name == "test" or (f"{name}_x" in arrays and "val_x" in arrays):
                return self._part(path, arrays, f"{name}_")
            return held_out(self._part(path, arrays, "train_"), name, {"val": self.num_val})
        if "x" not in arrays:
            raise UserError(f"{path} has the arrays {', '.join(arrays) or 'none'}: it needs train_x and test_x, or x")
        whole = self._part(path, arrays, "")
        return held_out(whole, name, {"test": min(len(whole) // 10, 10_000), "val": self.num_val})

    def _part(self, path: Path, arrays: Mapping[str, np.ndarray], prefix: str) -> ArrayDataset:
        if prefix not in self._read:
            self._read[prefix] = self._load(path, arrays, prefix)
        return self._read[prefix]

    def _load(self, path: Path, arrays: Mapping[str, np.ndarray], prefix: str) -> ArrayDataset:
        x = resize(channels_first(path, f"{prefix}x", arrays[f"{prefix}x"]), self.size)
        y = arrays.get(f"{prefix}y")
        if y is not None and (y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer)):
            raise UserError(
                f"{prefix}y in {path} has shape {y.shape} and dtype {y.dtype}: labels are {len(x)} integers"
            )
        return ArrayDataset(x, None if y is None else torch.from_numpy(y.astype(np.int64)))


@dataclass(frozen=True)
class ImageNet32:
    """Downsampled ImageNet (Chrabaszcz et al., 2017): `train_data_batch_1.npz` … `_10.npz` and `val_data.npz` in `root`.

    `val_data.npz` is the test split; `num_val` train images are kept for validation. Labels count from 0.
    """

    root: str
    num_val: int = 1000
    name: ClassVar[str] = "imagenet32"
    _read: dict[bool, ArrayDataset] = field(default_factory=dict, init=False, repr=False, compare=False)

    def split(self, name: str) -> BatchDataset:
        test = name == "test"
        if test not in self._read:
            self._read[test] = self._load(test)
        return self._read[test] if test else held_out(self._read[test], name, {"val": self.num_val})

    def _load(self, test: bool) -> ArrayDataset:
        root = check_path("data.root", self.root)
        files = [root / "val_data.npz"] if test else sorted(root.glob("train_data_batch_*.npz"))
        if not files or not files[0].is_file():
            raise UserError(
                f"ImageNet-32 is not at {root.absolute()}: put train_data_batch_*.npz and val_data.npz there, or set data.root"
            )
        xs, ys = zip(*(self._file(path) for path in files), strict=True)
        return ArrayDataset(torch.cat(xs), torch.cat(ys))

    def _file(self, path: Path) -> tuple[Tensor, Tensor]:
        arrays = load_npz(path, "set data.root")
        x, y = arrays.get("data"), arrays.get("labels")
        if x is None or y is None or x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != 3072 or len(x) != len(y):
            raise UserError(f"{path} is no batch of ImageNet-32: it needs data (n, 3072) of uint8 and labels (n,)")
        return torch.from_numpy(x).view(-1, 3, 32, 32), torch.from_numpy(y.astype(np.int64)) - 1


@dataclass(frozen=True)
class Torchvision:
    """A data set of torchvision's with `train=` and `download=`: MNIST, FashionMNIST, CIFAR10.

    `num_val` train images, by a fixed permutation, are kept for validation.

    Args:
        dataset: the class.
        root: where torchvision keeps its files.
        size: pixels of a side; images of another size are resized.
        download: fetch the files if they are missing.
        num_val: size of the validation split.
    """

    dataset: Any
    root: str
    size: int
    download: bool = False
    num_val: int = 1000
    _read: dict[bool, ArrayDataset] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_settings(self.size)

    @property
    def name(self) -> str:
        return self._class().__name__.lower()

    def _class(self) -> Any:
        return getattr(self.dataset, "func", self.dataset)

    def split(self, name: str) -> BatchDataset:
        test = name == "test"
        if test not in self._read:
            self._read[test] = self._load(test)
        return self._read[test] if test else held_out(self._read[test], name, {"val": self.num_val})

    def _load(self, test: bool) -> ArrayDataset:
        root = check_path("data.root", self.root)
        try:
            data = self._class()(str(root), train=not test, download=self.download)
        except OSError as error:
            raise UserError(
                f"{self._class().__name__} cannot be downloaded to {root.absolute()}: {first_line(error)}"
            ) from error
        except RuntimeError as error:
            raise UserError(
                f"{self._class().__name__} is not at {root.absolute()}: {first_line(error)}; set data.root to where it is, "
                "or data.download=true"
            ) from error
        except Exception as error:
            raise UserError(
                f"{self._class().__name__}'s files at {root.absolute()} are damaged: {first_line(error)}; delete them and take "
                "data.download=true"
            ) from error
        x = torch.as_tensor(data.data)
        x = x[:, None] if x.dim() == 3 else x.permute(0, 3, 1, 2).contiguous()
        return ArrayDataset(resize(x, self.size), torch.as_tensor(data.targets))
