"""How scores are shown and kept: the table on the terminal, and `summary.json`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table


def print_table(rows: Iterable[dict[str, Any]], title: str) -> None:
    """One line for each method and real split."""
    rows = list(rows)
    for failed in (row for row in rows if not row["scores"]):
        print(f"{failed['method']}: {failed['error']}")
    rows = [row for row in rows if row["scores"]]
    table = Table(title=title)
    splits = list(rows[0]["scores"])
    fid = next(key for key in rows[0]["scores"][splits[0]] if key.startswith("fid_"))
    extra = {
        heading: (key, form)
        for heading, key, form in (
            ("ESS", "ess_share", "{:.1%}"),
            ("R-hat", "rhat", "{:.2f}"),
            ("class accuracy", "class_accuracy", "{:.1%}"),
            ("IS", "inception_score", "{:.2f}"),
            ("seconds", "seconds", "{:.1f}"),
        )
        if any(key in row for row in rows)
    }
    for heading in ("samples", "against", fid, "relative FID", "KID", "precision", "recall", *extra):
        table.add_column(heading, justify="left" if heading in ("samples", "against") else "right", no_wrap=True)
    for row in rows:
        for split in splits:
            s = row["scores"][split]
            first = split == splits[0]
            table.add_row(
                row["method"] if first else "",
                split,
                f"{s[fid]:.3f}",
                f"{s['relative_fid']:.3f}",
                f"{s['kid']:.4f}",
                f"{s['precision']:.3f}",
                f"{s['recall']:.3f}",
                *(form.format(row[key]) if first and key in row else "" for key, form in extra.values()),
            )
    # Wide enough for all: a cell that is cut says nothing.
    Console(width=Console(width=1000).measure(table).maximum).print(table)


def versions() -> dict[str, str]:
    """What the figures were made with."""
    from importlib.metadata import version

    from .._version import __version__

    own = {"gebm_lightning": __version__, "python": platform.python_version(), "torch": torch.__version__}
    return own | {p: version(p) for p in ("torchvision", "pytorch_lightning", "torch_fidelity", "numpy", "pillow")}


def describe(method: Any) -> Any:
    """A refiner's, kernel's or data source's settings as plain data, with the name of its class."""
    if dataclasses.is_dataclass(method):
        fields = {f.name: describe(getattr(method, f.name)) for f in dataclasses.fields(method) if f.repr}
        return {"class": type(method).__name__, **fields}
    if isinstance(method, functools.partial):
        given = {
            **{str(i): describe(a) for i, a in enumerate(method.args)},
            **{k: describe(v) for k, v in method.keywords.items()},
        }
        return {"function": method.func.__name__, **given} if given else method.func.__name__
    if isinstance(method, Mapping):
        return {str(key): describe(value) for key, value in method.items()}
    if isinstance(method, (list, tuple)):
        return [describe(value) for value in method]
    if isinstance(method, torch.nn.Module):
        plain = {
            k: v
            for k, v in vars(method).items()
            if not k.startswith("_") and isinstance(v, (int, float, str)) and k != "training"
        }
        return {"class": type(method).__name__, **plain, "state": digest(method)}
    return method if isinstance(method, (int, float, str, bool, type(None))) else type(method).__name__


def digest(module: torch.nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return found.hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, path)
