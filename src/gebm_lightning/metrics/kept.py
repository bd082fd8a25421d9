"""What was computed once of a real set, kept on disk beside its features."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Kept:
    """Arrays by name in files beside `path`, the features that they are of; without a path nothing is kept."""

    path: Path | None = None

    def get(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays kept under a name; where there are none, or damaged ones, what `make` gives, kept from now on."""
        if self.path is None:
            return make()
        file = self.path.with_suffix(f".{name}.npz")
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            pass  # absent or damaged
        made = make()
        write(file, lambda stream: np.savez(stream, **made))  # type: ignore[arg-type]
        return made


def write(path: Path, save: Callable[[Any], None]) -> None:
    """Write a file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        save(stream)
    os.replace(temporary, path)
