"""One look for all figures: the same colours for data, base and model everywhere, and a map of what the energy does."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

P, Q, MODEL = "#228833", "#AA3377", "#222222"
"""Colours of the data's law, of the base's, and of the model's samples."""
WITNESS = "#333333"
"""Colour of a witness or critic that is alone in its axes."""
SEQUENCE = ("#332288", "#4477AA", "#44AAAA", "#DDAA33", "#CC6633")
"""Colours of several curves in an order, such as penalties or steps; none of them is P's or Q's."""
INCREASED = LinearSegmentedColormap.from_list("increased", ["#1F5FA8", "#9ECAE1", "#FFFFFF", "#FDBE85", "#D95F02"])
"""Blue where the energy reduces mass, orange where it increases mass."""
SMALL = 8
"""Size of the letters in legends and notes."""


def panels(
    rows: int, columns: int, width: float = 7.4, height: float = 2.9, layout: str = "constrained", **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    """A figure, `width` by `height` inches, and its axes (rows, columns); kwargs as of `Figure.subplots`."""
    figure = Figure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def label(ax: Axes, x: str, y: str, title: str = "") -> None:
    """Name both axes, and what is seen in them."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    if title:
        ax.set_title(title, fontsize=10)


def density(ax: Axes, points: Tensor, values: Tensor, color: str, name: str) -> None:
    """A density over the line, filled: points (n, 1) in order, values (n,)."""
    at, height = points[:, 0].numpy(), values.numpy()
    ax.fill_between(at, height, color=color, alpha=0.2, linewidth=0)
    ax.plot(at, height, color=color, linewidth=1.2, label=name)


def scatter(ax: Axes, points: Tensor, color: str, name: str | None = None, size: float = 3, alpha: float = 0.5) -> None:
    """Points (n, 2) of the plane."""
    x, y = points.detach().numpy().T
    ax.scatter(x, y, s=size, color=color, alpha=alpha, linewidths=0, label=name)


def plane(ax: Axes, limit: float, title: str = "") -> None:
    """The square [−limit, limit]² with equal scales."""
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    label(ax, "$x_1$", "$x_2$", title)


def legend(ax: Axes, **kwargs: Any) -> None:
    """A small legend, whose marks are opaque."""
    for handle in ax.legend(**{"fontsize": SMALL, "framealpha": 0.9, "handlelength": 1.5} | kwargs).legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)


def percent(shares: Tensor) -> str:
    """Shares (k,) as text, such as 60/30/10 %."""
    return "/".join(f"{100 * share:.0f}" for share in shares.tolist()) + " %"
