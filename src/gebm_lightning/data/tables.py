"""Tables of real numbers: the UCI sets of density estimation, from their original files, and those that scikit-learn brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn import datasets as sklearn_datasets

from ..errors import UserError, check_number, check_path
from ..noise import stable_seed
from .datasets import ArrayDataset
from .uci import READERS, bsds300

INSTALLED: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "wine": sklearn_datasets.load_wine,
    "breast_cancer": sklearn_datasets.load_breast_cancer,
    "diabetes": sklearn_datasets.load_diabetes,
    "iris": sklearn_datasets.load_iris,
}
WHITENING = ("standard", "pca", "none")


class Affine(NamedTuple):
    """x ↦ (x − mean) @ factor, from the train part."""

    mean: np.ndarray
    factor: np.ndarray

    @property
    def log_det(self) -> float:
        """What a log density in whitened coordinates gains to be one in the table's own units, in nats."""
        return float(np.linalg.slogdet(self.factor)[1])


@dataclass(frozen=True)
class Table:
    """A table whose rows are samples: 10 % for the test, then at most 1,000 (and a tenth) for validation, the rest to train.

    Rows that are equal stay in one split. Quantised columns are dequantised: each number gets uniform noise of the width of
    its column's commonest step, one fixed draw for all runs. Mean and scale come from the train part alone.

    Args:
        table: "redwine", "whitewine", "parkinsons", "hepmass", "miniboone", "power", "gas", "bsds300" (which has parts of its
            own) from their original files in `root`; "wine", "breast_cancer", "diabetes", "iris", which come with scikit-learn.
        root: folder of the files.
        whitening: "standard" for zero mean and unit variance of every column, "pca" for an identity covariance, "none".
        dequantise: add the noise.
        max_rows: at most so many rows of the table (bsds300: of each part), by a fixed permutation; None for all.

    Raises:
        UserError: no such table or file, missing or infinite values, a constant column.
    """

    table: str = "wine"
    root: str | None = None
    whitening: str = "standard"
    dequantise: bool = True
    max_rows: int | None = None
    _read: dict[str, ArrayDataset] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.table not in (*INSTALLED, *READERS, "bsds300"):
            raise UserError(
                f"data.source.table is one of {', '.join([*INSTALLED, *READERS])}, bsds300, not {self.table}"
            )
        if self.whitening not in WHITENING:
            raise UserError(f"data.source.whitening is one of {', '.join(WHITENING)}, not {self.whitening}")
        if self.max_rows is not None:
            check_number("data.source.max_rows", self.max_rows, low=50, integer=True)

    @property
    def name(self) -> str:
        return self.table

    def split(self, name: str) -> ArrayDataset:
        """A split, (n, d) in float32."""
        if not self._read:
            self._prepare()
        return self._read[name]

    def rows(self) -> np.ndarray:
        """The table as it is in its files, all parts of it, (n, d) in float64."""
        parts = self._own_parts()
        return self._rows() if parts is None else np.concatenate(list(parts.values()))

    def _own_parts(self) -> dict[str, np.ndarray] | None:
        if self.table != "bsds300":
            return None
        parts = {part: np.asarray(rows, dtype=np.float64) for part, rows in bsds300(self._folder()).items()}
        for part, rows in parts.items():
            check(f"{self.table} ({part})", rows)
        parts["val"] = parts["val"][:1000]
        return {part: self._some(rows, f"{self.table}/{part}") for part, rows in parts.items()}

    def _some(self, rows: np.ndarray, name: str) -> np.ndarray:
        if self.max_rows is None or len(rows) <= self.max_rows:
            return rows
        order = np.random.default_rng(stable_seed("rows", name)).permutation(len(rows))
        return rows[np.sort(order[: self.max_rows])]

    def _folder(self) -> Path:
        if self.root is None:
            raise UserError(
                f"data.source.table={self.table} is read from its original files: set data.root to their folder"
            )
        return check_path("data.root", self.root)

    def _rows(self) -> np.ndarray:
        if self.table in INSTALLED:
            rows = INSTALLED[self.table](return_X_y=True)[0]
        else:
            rows = READERS[self.table](self._folder())
        rows = np.asarray(rows, dtype=np.float64)
        check(self.table, rows)
        return self._some(rows, self.table)

    def _prepare(self) -> None:
        own = self._own_parts()
        if own is not None:
            rows = np.concatenate(list(own.values()))
            borders = np.cumsum([len(part) for part in own.values()])[:-1]
            parts = dict(zip(own, np.split(np.arange(len(rows)), borders), strict=True))
        else:
            rows = self._rows()
            parts = split_rows(rows, stable_seed("split", self.table))
        if self.dequantise:
            noise = np.random.default_rng(stable_seed("dequantise", self.table)).random(rows.shape) - 0.5
            rows = rows + noise * steps(rows[parts["train"]])
        affine = whiten(rows[parts["train"]], self.whitening)
        for part, index in parts.items():
            x = (rows[index] - affine.mean) @ affine.factor
            self._read[part] = ArrayDataset(torch.from_numpy(x).float())


def check(name: str, rows: np.ndarray) -> None:
    """Raise a UserError that names the first missing value or constant column."""
    if rows.ndim != 2 or len(rows) < 50:
        raise UserError(f"the table {name} has shape {rows.shape}: it needs at least 50 rows of numbers")
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        row, column = bad[0]
        raise UserError(
            f"the table {name} has {len(bad)} values that are missing or infinite, the first in row {row + 1}, column {column + 1}: "
            "remove such rows, or fill them"
        )
    flat = np.flatnonzero(rows.max(0) == rows.min(0))
    if len(flat):
        raise UserError(f"column {flat[0] + 1} of the table {name} is constant: it has no density; remove it")


def split_rows(rows: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Indices of the parts: test a tenth, val a tenth of the rest but at most 1,000; equal rows together, order mixed."""
    _, group = np.unique(rows, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.random.default_rng(seed).permutation(group.max() + 1)
    # Rows in the order of their groups' places: a cut between two groups never parts equal rows.
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    index = np.argsort(place[group], kind="stable")
    sorted_groups = place[group][index]

    def border(at: int) -> int:
        while 0 < at < len(index) and sorted_groups[at] == sorted_groups[at - 1]:
            at += 1
        return at

    test = border(round(len(rows) / 10))
    val = border(test + min(1000, round((len(rows) - test) / 10)))
    return {"test": index[:test], "val": index[test:val], "train": index[val:]}


def steps(rows: np.ndarray) -> np.ndarray:
    """(d,) commonest step between neighbouring values of each column; 0 where most rows have a value of their own."""
    widths = np.zeros(rows.shape[1])
    for j, column in enumerate(rows.T):
        values = np.unique(column)
        if 1 < len(values) < len(column) / 2:
            # Rounded, for differences of decimals are not decimals.
            gaps, counts = np.unique(np.diff(values).round(10), return_counts=True)
            widths[j] = gaps[counts.argmax()]
    return widths


def whiten(train: np.ndarray, kind: str) -> Affine:
    """The map to zero mean and unit variance, or to an identity covariance.

    Raises:
        UserError: columns of the train part that depend on one another linearly, for "pca"; or a constant one.
    """
    mean = train.mean(0)
    if kind == "none":
        return Affine(np.zeros_like(mean), np.eye(len(mean)))
    scale = train.std(0)
    if not scale.all():
        raise UserError(f"column {int(scale.argmin()) + 1} is constant in the train part of the table: remove it")
    if kind == "standard":
        return Affine(mean, np.diag(1 / scale))
    values, vectors = np.linalg.eigh(np.cov((train - mean).T, bias=True))
    if values[0] <= 1e-12 * values[-1]:
        raise UserError("columns of the table depend on one another: whitening=pca cannot be done; take standard")
    return Affine(mean, vectors / np.sqrt(values))
