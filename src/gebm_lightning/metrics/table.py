"""A comparison of samplers as files: `NAME.md`, `NAME.csv` and `NAME.png` beside the `NAME.json` that holds all of it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .compare import cost_of

SCORES = (
    ("relative_fid", "relative FID", ".3f"),
    ("kid", "KID", ".4f"),
    ("precision", "precision", ".3f"),
    ("recall", "recall", ".3f"),
    ("high_quality", "high quality", ".1%"),
    ("modes", "modes", ".0f"),
    ("mode_js", "JS of modes", ".4f"),
    ("wasserstein1", "W1", ".4f"),
)
COSTS = (
    ("acceptance", "acceptance", ".1%"),
    ("rhat", "R-hat", ".3f"),
    ("ess", "ESS", ".0f"),
    ("ess_share", "ESS share", ".1%"),
    ("modes_per_chain", "modes a chain", ".1f"),
    ("mode_time", "mode time", ".0f"),
    ("gradients", "gradients", ".0f"),
    ("evaluations", "evaluations", ".0f"),
    ("tuning_gradients", "gradients of tuning", ".0f"),
    ("seconds", "seconds", ".1f"),
)


def write_table(path: Path, rows: Sequence[dict[str, Any]], equal_cost: float | None) -> None:
    """All three files, each all or nothing; `path` is the json's."""
    columns, flat = _flatten(rows, equal_cost)
    text = io.StringIO()
    writer = csv.DictWriter(text, ["method", *columns, "note"])
    writer.writeheader()
    writer.writerows(flat)
    for suffix, content in ((".csv", text.getvalue()), (".md", markdown(rows, equal_cost))):
        temporary = path.with_suffix(f"{suffix}.tmp")
        temporary.write_text(content)
        os.replace(temporary, path.with_suffix(suffix))
    if any(row["scores"] for row in rows):
        from ..callbacks.images import save

        save(figure(rows, equal_cost), path.with_suffix(".png"))


def markdown(rows: Sequence[dict[str, Any]], equal_cost: float | None) -> str:
    """One line for each method: scores by split, then what it took to draw them."""
    columns, flat = _flatten(rows, equal_cost)
    forms = dict(columns)
    lines = ["| samples | " + " | ".join(columns) + " | note |", "|---" * (len(columns) + 2) + "|"]
    for row in flat:
        cells = [format(row[key], form) if row.get(key) is not None else "" for key, form in forms.items()]
        lines.append("| " + " | ".join([row["method"], *cells, row["note"]]) + " |")
    return "\n".join(lines) + "\n"


def long_form(rows: Sequence[dict[str, Any]], protocol: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """One line for each method and real split, with all its numbers, what it took and under what protocol: columns and lines."""
    shared = {key: protocol.get(key) for key in ("extractor", "extractor_weights_sha256", "base", "seed")}
    lines: list[dict[str, Any]] = []
    for row in rows:
        costs = {name: row[key] for key, name, _ in COSTS if key in row}
        for split, scores in (row["scores"] or {"": {}}).items():
            counts = protocol.get("splits", {}).get(split, {})
            told = {"generated": counts.get("num_generated"), "real": counts.get("num_real")}
            lines.append(
                {"samples": row["method"], "against": split, **scores, **costs, "note": note(row), **told, **shared}
            )
    columns = list(dict.fromkeys(key for line in lines for key in line))
    return columns, [[line.get(key) for key in columns] for line in lines]


def note(row: dict[str, Any]) -> str:
    """What a reader of a row has to be told: an error, chains that did not move, chains that have not mixed."""
    if "error" in row:
        return f"error: {row['error']}"
    told = [row["warning"]] if "warning" in row else []
    if row.get("acceptance") == 0:
        told.append("nothing was accepted")
    # NaN, that of chains which stand still, is no better.
    if not row.get("rhat", 1.0) <= 1.05:
        told.append("chains not mixed: a short run")
    if "equal_cost_error" in row:
        told.append(f"at equal cost: {row['equal_cost_error']}")
    return "; ".join(told)


def _flatten(rows: Sequence[dict[str, Any]], equal_cost: float | None) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Columns with their formats, those that any row fills; and the rows by column."""
    splits = next((list(row["scores"]) for row in rows if row["scores"]), [])
    fid = next((key for row in rows for s in row["scores"].values() for key in s if key.startswith("fid_")), "fid")
    columns = {f"{fid} {split}": ".3f" for split in splits}
    columns |= {f"{name} {split}": form for _, name, form in SCORES[:1] for split in splits}
    columns |= {name: form for _, name, form in SCORES[1:]}
    at_cost = f"relative FID at {equal_cost:g} gradients" if equal_cost is not None else ""
    columns |= {at_cost: ".3f", "at its beta": ".3f"} | {name: form for _, name, form in COSTS}
    flat = []
    for row in rows:
        cells: dict[str, Any] = {"method": row["method"], "note": note(row)}
        for split, scores in row["scores"].items():
            cells |= {f"{fid} {split}": scores[fid], f"relative FID {split}": scores["relative_fid"]}
        last = row["scores"].get(splits[-1], {}) if splits else {}
        cells |= {name: last.get(key) for key, name, _ in SCORES[1:]}
        cells[at_cost] = row.get("equal_cost", {}).get(splits[-1]) if splits else None
        cells["at its beta"] = row.get("equilibrium", {}).get(splits[-1]) if splits else None
        flat.append(cells | {name: row.get(key) for key, name, _ in COSTS})
    used = {name: form for name, form in columns.items() if any(cells.get(name) is not None for cells in flat)}
    return used, [{k: v for k, v in cells.items() if k in used or k in ("method", "note")} for cells in flat]


def figure(rows: Sequence[dict[str, Any]], equal_cost: float | None) -> Figure:
    """Relative FID against the last split by method, as run and at equal cost; for known modes, quality against balance."""
    scored = [row for row in rows if row["scores"]]
    split = list(scored[0]["scores"])[-1]
    modes = [row for row in scored if "mode_js" in row["scores"][split]]
    panels = 2 if modes else 1
    drawn = Figure(figsize=(6.5 * panels, 1.4 + 0.32 * len(scored)), layout="constrained")
    axes = drawn.subplots(1, panels, squeeze=False)[0]
    ax, places = axes[0], range(len(scored))
    ax.plot([row["scores"][split]["relative_fid"] for row in scored], places, "o", color="C0", label="as run")
    short = [row.get("equal_cost", {}).get(split, float("nan")) for row in scored]
    if equal_cost is not None:
        ax.plot(short, places, "D", color="C1", markerfacecolor="none", label=f"at {equal_cost:g} gradients a sample")
    ax.axvline(1.0, color="grey", linewidth=0.8)
    ax.set_yticks(places, [f"{row['method']}  ({cost_of(row):.0f})" for row in scored])
    ax.invert_yaxis()
    ax.set_xlabel(f"FID against {split} data, relative to the base's (in brackets: gradients a sample)")
    ax.grid(axis="x", linewidth=0.3)
    ax.legend(fontsize=8)
    if modes:
        ax = axes[1]
        for row in modes:
            scores = row["scores"][split]
            ax.plot(scores["high_quality"], scores["mode_js"], "o", color="C0", markersize=4)
            ax.annotate(
                row["method"],
                (scores["high_quality"], scores["mode_js"]),
                fontsize=7,
                xytext=(3, 3),
                textcoords="offset points",
            )
        ax.set_xlabel("share of high quality")
        ax.set_ylabel("JS divergence of mode masses from uniform")
    return drawn
