"""torch's own files, read without running code of theirs and not before they are known to be whole."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any


def load_torch(path: Path) -> Any:
    """What `torch.save` wrote, on the CPU: tensors and plain containers only.

    Raises:
        ValueError: a part of the archive is damaged; and whatever zipfile and torch raise for files that are none of theirs.
    """
    import torch

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # torch does not compare the archive's checksums; a changed byte in a weight would go unseen.
            wrong = archive.testzip()
            # A part that says it is a directory has its checksum, but torch would leave the memory for it as it finds it.
            empty = next((part.filename for part in archive.infolist() if part.external_attr & 0x10), None)
        if wrong is not None:
            raise ValueError(f"its part {wrong} has a wrong checksum")
        if empty is not None:
            raise ValueError(f"its part {empty} is said to be a directory")
    return torch.load(path, map_location="cpu", weights_only=True)
