"""A run's `metrics.csv`, whose writer may be at work, or may have been killed at it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError, first_line


def read_rows(path: Path, growing: bool) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row, all of whose cells are there and whose `step` is a number, with the number of its line.

    Args:
        path: the file.
        growing: pass over a last line without its end, which an unfinished run may leave.

    Raises:
        UserError: the file is damaged.
    """
    line = 1
    try:
        content = path.read_bytes()
        if growing:
            content = content[: content.rfind(b"\n") + 1]
        text = content.decode("utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if (text or not growing) and "step" not in (reader.fieldnames or ()):
            raise ValueError("there is no column step")
        for row in reader:
            line = reader.line_num
            if None in row or None in row.values():
                raise ValueError("another number of cells than columns")
            float(row["step"])
            yield line, row
    except (OSError, ValueError, csv.Error) as error:
        raise damaged(path, line, error) from error


def damaged(path: Path, line: int, error: Exception) -> UserError:
    """The sentence for a line that cannot be used."""
    return UserError(f"{path} is damaged near line {line}: {first_line(error)}; mend it, or move it away")
