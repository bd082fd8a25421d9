"""Which files are the shards of a split."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from ..errors import UserError

RANGE = re.compile(r"(.*)\{(\d+)\.\.(\d+)\}(.*)")


def shard_files(pattern: str, ending: str) -> list[Path]:
    """The files of a folder, of a pattern with `*`, or of one with a range such as `data-{000000..000123}.tar`.

    Raises:
        UserError: there are none, or one of a range is missing.
    """
    given = RANGE.fullmatch(os.path.expanduser(pattern))
    if given is None:
        path = Path(pattern).expanduser()
        found = path.glob(f"*{ending}") if path.is_dir() else map(Path, glob.glob(str(path)))
        files = sorted(file for file in found if file.is_file())
        if not files:
            raise UserError(
                f"there are no shards {pattern}: name a folder, or files by a pattern such as 'data-{{000..123}}{ending}'"
            )
        return files
    head, low, high, tail = given.groups()
    files = [Path(f"{head}{i:0{len(low)}d}{tail}") for i in range(int(low), int(high) + 1)]
    if not files:
        raise UserError(f"the range of {pattern} is empty")
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{len(missing)} of the {len(files)} shards {pattern} are missing, the first is {missing[0]}")
    return files


def split_files(name: str, path: str, val: str | None, test: str | None, ending: str) -> list[Path]:
    """The shards of a split: those that `val` or `test` name, else those in the folder `path` whose file names begin with
    the split's; train is what is left of `path`.

    Raises:
        UserError: there are none, or val and test share some.
    """
    whole, in_folder = shard_files(path, ending), Path(path).expanduser().is_dir()
    parts = {}
    for part, pattern in (("val", val), ("test", test)):
        own = [file for file in whole if in_folder and file.name.startswith(part)]
        parts[part] = own if pattern is None else shard_files(pattern, ending)
    held = [file.resolve() for files in parts.values() for file in files]
    twice = next((file for file in held if held.count(file) > 1), None)
    if twice is not None:
        raise UserError(f"the shard {twice} is in the val split and in the test split: name it once")
    apart = set(held)
    files = [file for file in whole if file.resolve() not in apart] if name == "train" else parts[name]
    if not files:
        key = "path" if name == "train" else name
        raise UserError(f"no shards of {path} are the {name} split: name some with data.{key}=PATTERN")
    return files
