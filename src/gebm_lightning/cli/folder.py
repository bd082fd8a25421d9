"""A folder that a command writes whole: in the end, all at once, and over nothing that it did not write itself."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError

MANIFEST = "files.json"


def check_folder(folder: Path) -> None:
    """Raise a UserError if the folder holds files without the list that an earlier call would have left."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise UserError(f"out={folder} holds files that this program did not write: name another folder")


@contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A folder to write in, whose files are moved to `folder` in the end; those of an earlier call, by its list, are replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        temporary = Path(scratch)
        yield temporary
        folder.mkdir(exist_ok=True)
        for old in json.loads((folder / MANIFEST).read_text()) if (folder / MANIFEST).is_file() else []:
            (folder / Path(old).name).unlink(missing_ok=True)
        files = sorted(new.name for new in temporary.iterdir())
        (temporary / MANIFEST).write_text(json.dumps(files))
        for name in [MANIFEST, *files]:
            (temporary / name).replace(folder / name)
