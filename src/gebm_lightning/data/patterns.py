"""Which files are the shards of a split."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from ..errors import UserError, first_line

RANGE = re.compile(r"(.*)\{(\d+)\.\.(\d+)\}(.*)")


def shard_files(pattern: str, ending: str) -> list[str]:
    """The files of a folder, of a pattern with `*`, of one with a range such as `data-{000000..000123}.tar`, or at an address.

    An address, with `://`, is one that fsspec lists: nothing else asks a network.

    Raises:
        UserError: there are none, one of a range is missing, or the address cannot be reached.
    """
    if "://" in pattern:
        return _addresses(pattern, ending)
    given = RANGE.fullmatch(os.path.expanduser(pattern))
    if given is None:
        path = Path(pattern).expanduser()
        # A file's own name may have brackets in it.
        there = path.glob(f"*{ending}") if path.is_dir() else [path] if path.is_file() else None
        found = map(Path, glob.glob(str(path))) if there is None else there
        files = sorted(str(file) for file in found if file.is_file())
        if not files:
            raise UserError(
                f"there are no shards {pattern}: name a folder, or files by a pattern such as 'data-{{000..123}}{ending}'"
            )
        return files
    head, low, high, tail = given.groups()
    files = [f"{head}{i:0{len(low)}d}{tail}" for i in range(int(low), int(high) + 1)]
    if not files:
        raise UserError(f"the range of {pattern} is empty")
    missing = [file for file in files if not os.path.isfile(file)]
    if missing:
        raise UserError(f"{len(missing)} of the {len(files)} shards {pattern} are missing, the first is {missing[0]}")
    return files


def _addresses(pattern: str, ending: str) -> list[str]:
    try:
        import fsspec

        system, inner = fsspec.core.url_to_fs(pattern if "*" in pattern else f"{pattern.rstrip('/')}/**/*{ending}")
        files = sorted(system.unstrip_protocol(file) for file in system.glob(inner))
    except Exception as error:  # of any of fsspec's file systems, or the network
        raise UserError(f"{pattern} cannot be reached: {first_line(error)}") from error
    if not files:
        raise UserError(
            f"there are no shards {pattern}: an address ends in a folder, or in a pattern such as *{ending}"
        )
    return files


def split_files(name: str, path: str, val: str | None, test: str | None, ending: str) -> list[str]:
    """The shards of a split: those that `val` or `test` name, else those in the folder, or at the address, `path` whose file
    names begin with the split's; train is what is left of `path`.

    Raises:
        UserError: there are none, or val and test share some.
    """
    # A number on the command line is a name like any other.
    path = str(path)
    whole, listed = shard_files(path, ending), "://" in path or Path(path).expanduser().is_dir()
    parts = {}
    for part, pattern in (("val", val), ("test", test)):
        own = [file for file in whole if listed and Path(file).name.startswith(part)]
        parts[part] = own if pattern is None else shard_files(str(pattern), ending)
    held = [_place(file) for files in parts.values() for file in files]
    twice = next((file for file in held if held.count(file) > 1), None)
    if twice is not None:
        raise UserError(f"the shard {twice} is in the val split and in the test split: name it once")
    apart = set(held)
    files = [file for file in whole if _place(file) not in apart] if name == "train" else parts[name]
    if not files:
        key = "path" if name == "train" else name
        raise UserError(f"no shards of {path} are the {name} split: name some with data.{key}=PATTERN")
    return files


def _place(file: str) -> str:
    return file if "://" in file else os.path.realpath(file)
