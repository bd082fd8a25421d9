"""Runs and sweeps as one HTML page that needs nothing else: no script, nothing from any network, every text escaped."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from ..metrics.table import long_form
from ..panels import PANELS, PICTURES
from .record import Curves, Record

GENERATOR = '<meta name="generator" content="gebm-report">'
HEAD = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{GENERATOR}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>TITLE</title>
<style>
body {{ font: 15px/1.5 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; margin: 1em 0; }}
th, td {{ border-bottom: 1px solid #ccc; padding: .2em .6em; text-align: left; white-space: nowrap; }}
img {{ max-width: 100%; }}
pre {{ overflow-x: auto; background: #f4f4f4; padding: 1em; }}
section {{ border-top: 2px solid #888; margin-top: 3em; }}
</style>
</head>
<body>
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A page of parts that are HTML already."""
    return (
        HEAD.replace("TITLE", escape(title)) + f"<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def run_parts(run: Record) -> list[str]:
    """A run's table with its protocol, curves, pictures and config."""
    state = "finished" if run.finished else "unfinished"
    parts = [f"<p>{escape(str(run.folder))}, {state}</p>"]
    if run.summary is None:
        parts.append("<p>Not scored: there is no summary.json yet.</p>")
    else:
        columns, lines = long_form(run.summary["rows"], {})
        parts += ["<h3>Comparison</h3>", table(columns, [[_text(cell) for cell in line] for line in lines])]
        told = _leaves({k: v for k, v in run.summary.items() if k not in ("rows", "curve")})
        parts.append(_details("Protocol, and what else was measured", table(["what", "value"], told)))
    drawn = curves_figure(run.curves)
    parts += ["<h3>Curves</h3>", "<p>None were logged.</p>" if drawn is None else picture("curves", _png(drawn))]
    if run.pictures:
        names = sorted(
            run.pictures, key=lambda name: (PICTURES.index(name) if name in PICTURES else len(PICTURES), name)
        )
        parts += ["<h3>Pictures</h3>", *(f"<h4>{escape(n)}</h4>\n{picture(n, run.pictures[n])}" for n in names)]
    return [*parts, _details("config.yaml", f"<pre>{escape(run.config)}</pre>")]


def sweep_parts(
    jobs: dict[str, Record], tables: Sequence[tuple[list[str], list[list[str]]]], figure: Figure | None
) -> list[str]:
    """A sweep's tables, the first of which has a line for each job that begins with its name, its figure, and each job."""
    places = {name: f"job-{i}" for i, name in enumerate(jobs)}
    (columns, lines), *others = tables
    parts = [table(columns, lines, places)]
    parts += [f"<h2>Over seeds</h2>\n{table(*other)}" for other in others]
    if figure is not None:
        parts.append(picture("relative FID of the jobs", _png(figure)))
    for name, run in jobs.items():
        parts.append(
            f'<section id="{places[name]}">\n<h2>{escape(name)}</h2>\n' + "\n".join(run_parts(run)) + "\n</section>"
        )
    return parts


def table(columns: Sequence[str], lines: Iterable[Sequence[str]], places: dict[str, str] | None = None) -> str:
    """Texts as a table; those of the first column that `places` names lead there."""
    html = "<table>\n<tr>" + "".join(f"<th>{escape(column)}</th>" for column in columns) + "</tr>\n"
    for first, *rest in lines:
        place = (places or {}).get(first)
        begin = escape(first) if place is None else f'<a href="#{place}">{escape(first)}</a>'
        html += f"<tr><td>{begin}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>\n"
    return html + "</table>"


def picture(name: str, png: bytes) -> str:
    """A PNG file within the page."""
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{b64encode(png).decode()}">'


def curves_figure(curves: Curves, columns: int = 3) -> Figure | None:
    """The panels for which there are curves, over base updates; None if there are none."""
    shown = [(p, keys) for p in PANELS if (keys := [k for k in curves if re.fullmatch(p.keys, k)])]
    if not shown:
        return None
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    for ax, (panel, keys) in zip(axes, shown, strict=False):
        for key in keys:
            # Dollars would begin a formula, and an underscore at the start hides a line from the legend.
            ax.plot(*curves[key], label=" " + key.replace("$", r"\$"), marker="." if len(curves[key][0]) < 20 else None)
        ax.set_title(panel.title)
        if panel.log:
            ax.set_yscale("log", nonpositive="mask")
        ax.set_xlabel("base updates")
        ax.legend(fontsize=7)
        ax.grid(linewidth=0.3)
    return figure


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90)
    return file.getvalue()


def _leaves(node: Any, prefix: str = "") -> list[list[str]]:
    if isinstance(node, dict) and node:
        return [
            leaf for key, value in node.items() for leaf in _leaves(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [[prefix, _text(node)]]


def _text(value: Any) -> str:
    return "" if value is None else format(value, ".4g") if isinstance(value, float) else str(value)


def _details(title: str, content: str) -> str:
    return f"<details>\n<summary>{escape(title)}</summary>\n{content}\n</details>"
