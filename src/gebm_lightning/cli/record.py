"""What a run has left in its folder, read with care: a report is made of it, and whoever wrote it may not have been us."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from PIL import Image

from ..config import load_config
from ..errors import UserError, first_line
from ..hidden import without_hidden
from ..metrics.table import long_form
from ..metrics_csv import damaged, read_rows
from .sweep_report import summary_scores

Curves = dict[str, tuple[list[float], list[float]]]
"""Steps and values by metric."""


class Record(NamedTuple):
    """A run's folder; `summary` is None before its end, `pictures` are PNG files, the newest of each name."""

    folder: Path
    config: str
    finished: bool
    curves: Curves
    summary: dict[str, Any] | None
    pictures: dict[str, bytes]


def read_run(folder: Path) -> Record:
    """All of a run that a report shows.

    Raises:
        UserError: it is no run, or a file of it is damaged.
    """
    cfg = load_config(folder)
    shown = without_hidden(cfg)
    finished = (folder / "finished.json").is_file()
    metrics, summary = folder / "metrics.csv", folder / "summary.json"
    return Record(
        folder,
        (folder / "config.yaml").read_text(encoding="utf-8") if shown == cfg else OmegaConf.to_yaml(shown),
        finished,
        read_curves(metrics, growing=not finished) if metrics.is_file() else {},
        read_summary(summary) if summary.is_file() else None,
        read_pictures(folder / "images"),
    )


def read_curves(path: Path, growing: bool = False) -> Curves:
    """The columns of a `metrics.csv`, each without its empty cells; NaN and infinity are numbers."""
    curves: Curves = {}
    for line, row in read_rows(path, growing):
        step = float(row.pop("step"))
        for key, cell in row.items():
            if cell:
                steps, values = curves.setdefault(key, ([], []))
                steps.append(step)
                try:
                    values.append(float(cell))
                except ValueError as error:
                    raise damaged(path, line, error) from error
    return curves


def read_summary(path: Path) -> dict[str, Any]:
    """A `summary.json`, of which tables can be made."""
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        summary_scores(summary)
        long_form(summary["rows"], summary.get("protocol", {}))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from error
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise UserError(f"{path} is damaged, or no summary of a run: {type(error).__name__}: {error}") from error
    return summary


def read_pictures(folder: Path) -> dict[str, bytes]:
    """The newest PNG file of each name: that of the end, or that with the highest number of updates."""
    newest: dict[str, tuple[float, Path]] = {}
    for path in sorted(folder.glob("*.png")):
        name, number = re.fullmatch(r"(.*?)(?:-(\d+))?", path.stem, re.DOTALL).groups()  # type: ignore[union-attr]
        age = float("inf") if number is None else float(number)
        if name not in newest or age > newest[name][0]:
            newest[name] = age, path
    pictures = {}
    for name, (_, path) in newest.items():
        try:
            content = path.read_bytes()
            Image.open(io.BytesIO(content), formats=["PNG"]).verify()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is damaged or no picture: {first_line(error)}") from error
        pictures[name] = content
    return pictures
