"""What was computed once of a real set, kept on disk beside its features."""

from __future__ import annotations

import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

Arrays = Mapping[str, np.ndarray]
DAMAGED = (
    *(OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What numpy and zip files raise on a file that is absent, cut off or altered."""


@dataclass(frozen=True)
class Kept:
    """Arrays by name in files beside `path`, the features that they are of; without a path nothing is kept."""

    path: Path | None = None

    def get(self, name: str, make: Callable[[], Arrays], keys: tuple[str, ...]) -> Arrays:
        """The arrays `keys` kept under a name; where there are none, or damaged ones, what `make` gives, kept from now on."""
        if self.path is None:
            return make()
        file = self.path.with_suffix(f".{name}.npz")
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {key: arrays[key] for key in keys}
        except DAMAGED:
            pass  # made anew
        made = make()
        write(file, lambda stream: np.savez(stream, **made))  # type: ignore[arg-type]
        return made


def write(path: Path, save: Callable[[Any], None]) -> None:
    """Write a file that is whole or not there; a place that cannot be written is told, and ends nothing."""
    # Several processes may be at it, on several machines.
    temporary = path.with_suffix(f".{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                save(stream)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        print(f"note: {path} cannot be kept for the next evaluation: {error.strerror}", file=sys.stderr)
