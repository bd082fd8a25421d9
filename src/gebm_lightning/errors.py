"""The one exception that stands for a mistake of the user's, and how foreign ones are quoted in it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path


class UserError(Exception):
    """Something the user can mend: its text is one sentence that says what, where and what to do.

    A command prints it on stderr and ends with status 1; `debug=true` shows the traceback as well.
    """


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its kind if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_number(
    key: str, value: object, low: float | None = None, above: float | None = None, integer: bool = False
) -> None:
    """Raise a UserError unless `value` is a finite number (a whole one if `integer`), at least `low` and above `above`."""
    kind = "a whole number" if integer else "a number"
    kind += f" of at least {low}" if low is not None else f" above {above}" if above is not None else ""
    # numbers.Real, for numpy's scalars are neither int nor, but for float64, float.
    good = isinstance(value, Integral if integer else Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or (low is not None and value < low) or (above is not None and value <= above):  # type: ignore[operator]
        raise UserError(f"{key} must be {kind}, not {value!r}")


def check_path(key: str, value: object) -> Path:
    """The path that a config names; a whole number, which a command line makes of one, is a name like any other.

    Raises:
        UserError: it is no path.
    """
    if isinstance(value, bool) or not isinstance(value, (str, os.PathLike, Integral)) or value == "":
        raise UserError(f"{key} must be a path, not {value!r}")
    return Path(str(value))


def check_shape(key: str, shape: object) -> None:
    """Raise a UserError unless `shape` is that of a datum: whole numbers of at least 1."""
    listed = list(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else []
    if not listed or not all(isinstance(n, Integral) and not isinstance(n, bool) and n >= 1 for n in listed):  # type: ignore[operator]
        raise UserError(
            f"{key} must be whole numbers of at least 1, such as [3,32,32], not {listed or shape!r}; "
            "for images it follows from data.channels and data.size"
        )
