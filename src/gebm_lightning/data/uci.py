"""Readers of the UCI tables' original files, each to (n, d) numbers by the columns that density estimation uses."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import UserError, first_line

Reader = Callable[[Path], np.ndarray]


def _text(root: Path, *names: str) -> tuple[Path, str]:
    for name in names:
        path = root / name
        if path.is_file():
            try:
                return path, path.read_text(encoding="utf-8", errors="strict")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path} cannot be read as text: {first_line(error)}") from error
    raise UserError(
        f"there is none of {', '.join(names)} in {root.absolute()}: put the original file there, or set data.root"
    )


def _numbers(path: Path, text: str, delimiter: str | None, skip: int) -> np.ndarray:
    try:
        return np.genfromtxt(io.StringIO(text), delimiter=delimiter, skip_header=skip, dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path} is no table of numbers: {first_line(error)}") from error


def _wine(colour: str) -> Reader:
    def read(root: Path) -> np.ndarray:
        path, text = _text(root, f"winequality-{colour}.csv")
        rows = _numbers(path, text, ";", 1)
        if rows.shape[1] != 12:
            raise UserError(f"{path} has {rows.shape[1]} columns: the wine table has 11 features and the quality")
        return rows[:, :11]

    return read


def _parkinsons(root: Path) -> np.ndarray:
    """Telemonitoring: the 16 voice measures and what goes with them, less the subject's number, age, sex, time and total score."""
    path, text = _text(root, "parkinsons_updrs.data")
    rows = _numbers(path, text, ",", 1)
    if rows.shape[1] != 22:
        raise UserError(f"{path} has {rows.shape[1]} columns: the Parkinsons table has 22")
    return rows[:, 7:]


def _hepmass(root: Path) -> np.ndarray:
    """Signal rows of mass 1000, all features but those where a value is repeated too often (Papamakarios et al., 2017)."""
    parts = []
    for name in ("1000_train.csv", "1000_test.csv"):
        path, text = _text(root, name)
        rows = _numbers(path, text, ",", 1)
        if rows.shape[1] < 28:
            raise UserError(f"{path} has {rows.shape[1]} columns: HEPMASS has a label and 27 features or more")
        parts.append(rows[:, :28])
    rows = np.concatenate(parts)
    rows = rows[rows[:, 0] == 1][:, 1:]
    repeated = np.array([np.unique(column, return_counts=True)[1].max() for column in rows.T])
    return rows[:, repeated <= 100]


def _miniboone(root: Path) -> np.ndarray:
    """Signal rows without the detector's −1000s, all features but those repeated too often (Papamakarios et al., 2017)."""
    path, text = _text(root, "MiniBooNE_PID.txt")
    try:
        signal = int(text.split(maxsplit=1)[0])
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} does not begin with the number of signal events") from error
    rows = _numbers(path, text, None, 1)[:signal]
    rows = rows[(rows > -100).all(1)]
    if not len(rows):
        raise UserError(f"{path} has no signal rows")
    repeated = np.array([np.unique(column, return_counts=True)[1].max() for column in rows.T])
    return rows[:, repeated <= 100]


def _power(root: Path) -> np.ndarray:
    """Household power as Papamakarios et al. (2017) took it: active power, voltage, three meters, and the minute of the day;
    rows with missing values are left out, and of power.csv, where the day before fills them, rows equal to those of 24 h before."""
    path, text = _text(root, "household_power_consumption.txt", "power.csv")
    reader = csv.reader(io.StringIO(text), delimiter=";" if ";" in text[:200] else ",")
    names = [name.strip().lower() for name in next(reader, [])]
    filled = "date_time" in names
    time = "date_time" if filled else "time"
    wanted = ["global_active_power", "voltage", "sub_metering_1", "sub_metering_2", "sub_metering_3", time]
    if not set(wanted) <= set(names):
        raise UserError(f"{path} lacks the columns {', '.join(sorted(set(wanted) - set(names)))} of the power table")
    columns = [names.index(name) for name in wanted]
    rows: list[list[float]] = []
    days: deque[list[str]] = deque(maxlen=1440)
    for i, line in enumerate(reader):
        cells = [line[j].strip() if j < len(line) else "" for j in columns]
        copied = filled and len(days) == 1440 and days[0] == cells[:-1]
        days.append(cells[:-1])
        if copied or "" in cells or "?" in cells:
            continue
        try:
            hours, minutes, *_ = cells[-1].split(" ")[-1].split(":")
            rows.append([*map(float, cells[:-1]), 60 * int(hours) + int(minutes)])
        except ValueError as error:
            raise UserError(f"line {i + 2} of {path} is no row of numbers: {first_line(error)}") from error
    return np.array(rows)


def _gas(root: Path) -> np.ndarray:
    """The sixteen sensors, less each that follows a later one with a correlation above .98 (Papamakarios et al., 2017)."""
    path, text = _text(root, "ethylene_CO.txt")
    rows = _numbers(path, text, None, 1)
    if rows.shape[1] != 19:
        raise UserError(
            f"{path} has {rows.shape[1]} columns: the gas table has the time, two concentrations and 16 sensors"
        )
    rows = rows[:, 3:]
    while (close := (np.corrcoef(rows.T) > 0.98).sum(1) > 1).any():
        rows = np.delete(rows, int(close.argmax()), 1)
    return rows


def bsds300(root: Path) -> dict[str, np.ndarray]:
    """Patches of 8×8 pixels less their mean, less the last pixel, in the parts of the file, which were cut by image."""
    path = root / "BSDS300.hdf5"
    if not path.is_file():
        raise UserError(f"there is no BSDS300.hdf5 in {root.absolute()}: put the file there, or set data.root")
    try:
        import h5py
    except ImportError as error:
        raise UserError("data.table=bsds300 is read from HDF5: pip install h5py") from error
    try:
        with h5py.File(path) as file:
            return {part: file[name][:] for part, name in (("train", "train"), ("val", "validation"), ("test", "test"))}
    except (OSError, KeyError) as error:
        raise UserError(f"{path} is no HDF5 file with train, validation and test: {first_line(error)}") from error


READERS: dict[str, Reader] = {
    "redwine": _wine("red"),
    "whitewine": _wine("white"),
    "parkinsons": _parkinsons,
    "hepmass": _hepmass,
    "miniboone": _miniboone,
    "power": _power,
    "gas": _gas,
}
