"""The relative score of a run, FID of the model's samples over FID of its base, from the run's folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from matplotlib.figure import Figure

from ..errors import UserError
from .style import label, legend, panels

KEY = "relative_fid"


def relative_fid(run: str | Path) -> Figure:
    """Relative FID of the chain against sampling steps, and the equilibrium's, as in the run's `summary.json`.

    Raises:
        UserError: the folder has no such file, or no curve in it.
    """
    # The callbacks bring in Lightning, which no other figure needs.
    from ..callbacks.images import curve_figure

    path = Path(run) / "summary.json"
    try:
        summary = json.loads(path.read_text())
        rows, curve, extractor = summary["rows"], summary["curve"], summary["protocol"]["extractor"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no summary of a run: {type(error).__name__} {error}") from error
    if not curve:
        raise UserError(f"{path} has no curve: train with callbacks.evaluation.curve_steps=[1,3,10,30]")
    settled = {
        split: scores[KEY] for row in rows if row["method"] == "equilibrium" for split, scores in row["scores"].items()
    }
    return curve_figure(curve, settled, extractor)


def relative_fid_in_training(run: str | Path) -> Figure:
    """Relative FID of short run and equilibrium against base updates, as in the run's `metrics.csv`.

    Raises:
        UserError: the folder has no such file, or nothing was scored while training.
    """
    path = Path(run) / "metrics.csv"
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    columns = sorted(key for key in (rows[0] if rows else ()) if key.split("/")[1:2] == [KEY])
    columns = [key for key in columns if not key.endswith("/base")]
    if not columns:
        raise UserError(f"{path} has no {KEY}: train with callbacks.evaluation.every_n_base_updates=100")
    figure, ((ax,),) = panels(1, 1, width=6, height=4)
    for i, column in enumerate(columns):
        split, _, method = column.split("/")
        known = [(float(row["step"]), float(row[column])) for row in rows if row[column]]
        ax.plot(*zip(*known, strict=True), color=f"C{i}", marker="o", markersize=3, label=f"{method}, {split} images")
    ax.axhline(1.0, color="grey", linewidth=0.8, label="base")
    label(ax, "base updates", "relative FID")
    legend(ax)
    return figure
