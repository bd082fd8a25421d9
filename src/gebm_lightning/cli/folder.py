"""A folder that a command writes whole: in the end, all at once, and over nothing that it did not write itself."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError

MANIFEST = "gebm_files.json"
PROGRAM = "gebm_lightning"


def written_before(folder: Path) -> list[str] | None:
    """Names of the files that an earlier call left in the folder, by its list; None if there is no such list of ours."""
    try:
        told = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    names = told.get("files") if isinstance(told, dict) and told.get("program") == PROGRAM else None
    return names if isinstance(names, list) and all(isinstance(n, str) and n == Path(n).name for n in names) else None


def check_folder(folder: Path) -> None:
    """Raise a UserError if the folder cannot be written, or holds files without the list that an earlier call would have left."""
    if folder.is_dir() and any(folder.iterdir()) and written_before(folder) is None:
        raise UserError(f"out={folder} holds files that this program did not write: name another folder")
    above = folder if folder.is_dir() else next(parent for parent in folder.absolute().parents if parent.exists())
    try:
        tempfile.TemporaryDirectory(dir=above).cleanup()
    except OSError as error:
        raise UserError(f"out={folder} cannot be written: {above}: {error.strerror}; name another folder") from error


@contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A folder to write in, whose files are moved to `folder` in the end; those of an earlier call, by its list, are replaced.

    Raises:
        UserError: a file of one of these names is there that no earlier call has listed; nothing is changed then.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        temporary = Path(scratch)
        yield temporary
        folder.mkdir(exist_ok=True)
        before = written_before(folder) or []
        files = sorted(new.name for new in temporary.iterdir())
        foreign = next((name for name in files if name not in before and (folder / name).exists()), None)
        if foreign is not None:
            raise UserError(
                f"{folder / foreign} is not this program's: it is not replaced; move it, or name another out="
            )
        (temporary / MANIFEST).write_text(json.dumps({"program": PROGRAM, "files": files}))
        for old in before:
            (folder / old).unlink(missing_ok=True)
        for name in [MANIFEST, *files]:
            (temporary / name).replace(folder / name)
