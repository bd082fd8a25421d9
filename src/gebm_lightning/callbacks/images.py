"""Pictures of samples: grids of images, scatter plots of points, strips of chains, curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from ..data.batch import to_uint8, to_unit


def side_by_side(samples: dict[str, Tensor], labels: Tensor | None = None, columns: int = 8) -> Figure:
    """Samples of several methods (each (n, *shape)) beside one another: grids of images, or scatter plots of points.

    With labels (n,), each image has its own in its corner.
    """
    figure = Figure(figsize=(4 * len(samples), 4.3), layout="constrained")
    axes = figure.subplots(1, len(samples), squeeze=False, sharex=True, sharey=True)[0]
    for ax, (name, x) in zip(axes, samples.items(), strict=True):
        ax.set_title(name)
        if x.dim() == 4:
            grid = make_grid(_bytes(x), columns, padding=1, pad_value=1.0)
            _show(ax, grid)
            for i, label in enumerate([] if labels is None else labels.tolist()):
                corner = (1.0 + i % columns * (x.shape[3] + 1), 1.0 + i // columns * (x.shape[2] + 1))
                ax.text(*corner, str(label), color="tab:orange", fontsize=6, va="top")
        else:
            ax.scatter(*x[:, :2].cpu().T, c=None if labels is None else labels.cpu(), s=2, alpha=0.5, linewidths=0)
            ax.set_aspect("equal")
    return figure


def strip(states: Sequence[Tensor], steps: Sequence[int], rows: int = 8, labels: Tensor | None = None) -> Figure:
    """The same chains at successive steps, left to right: column k shows `states[k]` (n, *shape) after `steps[k]` steps.

    With labels (n,), each row has its own at the left.
    """
    if states[0].dim() != 4:
        return side_by_side({f"step {step}": x for step, x in zip(steps, states, strict=True)}, labels)
    grid = make_grid(
        torch.stack([_bytes(x[:rows]) for x in states], 1).flatten(0, 1), len(states), padding=1, pad_value=1.0
    )
    figure = Figure(figsize=(len(states), rows + 0.6), layout="constrained")
    ax = figure.subplots()
    _show(ax, grid)
    width = grid.shape[2] / len(states)
    ax.set_xticks([(i + 0.5) * width for i in range(len(states))], [str(step) for step in steps])
    ax.set_xlabel("sampling steps")
    if labels is not None:
        height = grid.shape[1] / len(states[0][:rows])
        ax.set_yticks([(i + 0.5) * height for i in range(len(labels[:rows]))], labels[:rows].tolist())
    return figure


def paths(states: Sequence[Tensor]) -> Figure:
    """The ways of n chains through the plane: `states` are their points (n, d) in the order of time; the last are marked."""
    figure = Figure(figsize=(4.5, 4.3), layout="constrained")
    ax = figure.subplots()
    ways = torch.stack(list(states), 1)[..., :2].cpu()
    for i, way in enumerate(ways):
        ax.plot(*way.T, color=f"C{i}", linewidth=0.5, marker=".", markersize=2)
        ax.plot(*way[-1], color=f"C{i}", marker="o")
    ax.set_aspect("equal")
    return figure


def curve_figure(curve: dict[str, list[float]], equilibrium: dict[str, float], extractor: str) -> Figure:
    """Relative FID against sampling steps for each real split, with the equilibrium's as a dashed line."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for i, split in enumerate(key for key in curve if key != "step"):
        ax.plot(
            curve["step"], curve[split], color=f"C{i}", marker="o", markersize=3, label=f"short run, {split} images"
        )
        if split in equilibrium:
            ax.axhline(equilibrium[split], color=f"C{i}", linestyle="--", label=f"equilibrium, {split} images")
    ax.axhline(1.0, color="grey", linewidth=0.8, label="base")
    ax.set_xlabel("sampling steps")
    ax.set_ylabel(f"relative FID ({extractor} features)")
    ax.legend(fontsize=8)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    figure.savefig(temporary, format="png", dpi=120)
    temporary.replace(path)


def _bytes(x: Tensor) -> Tensor:
    return (to_unit(to_uint8(x)).cpu() + 1) / 2


def _show(ax: Axes, grid: Tensor) -> None:
    ax.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_yticks([])
    ax.set_xticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
