"""Draws images/equilibrium.png from the tables of equilibrium.md: `python docs/equilibrium_figure.py`."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

HERE = Path(__file__).parent
MARKERS = {"Digits": "o", "Fashion-MNIST": "s"}


def rows(text: str) -> list[tuple[str, str, float, float, float]]:
    """(data, setting, relative FID on test, held-out Donsker–Varadhan, ESS as a share) of every row of the tables."""
    found, data = [], ""
    for line in text.splitlines():
        if line.startswith("## "):
            data = line.split()[1]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if data in MARKERS and len(cells) == 9 and cells[1].isdigit():
            held_out = cells[7].split("/")[1]
            found.append((data, cells[0], float(cells[5]), float(held_out), float(cells[6].rstrip("%")) / 100))
    return found


def draw(table: list[tuple[str, str, float, float, float]]) -> Figure:
    """The equilibrium's relative FID against the held-out bound and against the ESS, a colour for each setting."""
    figure = Figure(figsize=(9.8, 5.4), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1, 2, sharey=True))
    settings = list(dict.fromkeys(row[1] for row in table))
    colours = {setting: f"C{i}" for i, setting in enumerate(settings)}
    for data, setting, ratio, bound, ess in table:
        for ax, x in zip(axes, (bound, ess), strict=True):
            ax.plot(x, ratio, MARKERS[data], color=colours[setting], markeredgecolor="white", markersize=8)
    for ax in axes:
        ax.axhline(1, color="grey", linewidth=1)
        ax.axhline(0.9, color="grey", linewidth=1, linestyle=":")
        ax.grid(alpha=0.2)
    axes[0].set(xlabel="Donsker–Varadhan, held-out", ylabel="equilibrium FID / base FID (test)")
    axes[1].set(xlabel="effective sample size, share of the pool")
    marks = [Line2D([], [], linestyle="", marker=m, color="black", label=data) for data, m in MARKERS.items()]
    marks += [Line2D([], [], linestyle="", marker="D", color=colours[s], label=s) for s in settings]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False)
    return figure


if __name__ == "__main__":
    draw(rows((HERE / "equilibrium.md").read_text())).savefig(HERE / "images" / "equilibrium.png", dpi=100)
