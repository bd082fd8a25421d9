"""Pictures of particles on their way: where they ended, their loss, and a film."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.axes
import numpy as np
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from ..errors import UserError

WRITERS: dict[str, type[AbstractMovieWriter]] = {"gif": PillowWriter, "mp4": FFMpegWriter}
MARGIN = 0.05


def check_writer(kind: str) -> None:
    """Raise a UserError unless this machine can write such a film."""
    if not WRITERS[kind].isAvailable():  # type: ignore[attr-defined]
        raise UserError(f"animation={kind} needs ffmpeg, which is not on this machine's PATH: install it, or take gif")


def final_figure(initial: np.ndarray, final: np.ndarray, target: np.ndarray, losses: Sequence[float]) -> Figure:
    """Particles (n, 2) at the start and at the end over the target (m, 2), and the loss at each step."""
    figure = Figure(figsize=(9, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    _scatter(left, target, "tab:gray", "target")
    _scatter(left, initial, "tab:orange", "start")
    _scatter(left, final, "tab:blue", "end")
    _frame(left, [initial, final, target])
    left.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    right.plot(losses)
    if min(losses) > 0:
        right.set_yscale("log")
    right.set_xlabel("step")
    right.set_ylabel("loss")
    return figure


def animate(states: Sequence[np.ndarray], steps: Sequence[int], target: np.ndarray, path: Path, fps: int) -> None:
    """A film of particles (n, 2) at successive steps over the target (m, 2); the kind is the path's suffix."""
    figure = Figure(figsize=(4.5, 4.5))
    ax = figure.subplots()
    _scatter(ax, target, "tab:gray", "target")
    moving = _scatter(ax, states[0], "tab:blue", "particles")
    _frame(ax, [*states, target])
    figure.legend(loc="lower center", ncols=2, fontsize=8, frameon=False)
    writer = WRITERS[path.suffix[1:]](fps=fps)
    with writer.saving(figure, str(path), dpi=100):
        for step, state in zip(steps, states, strict=True):
            moving.set_offsets(state)
            ax.set_title(f"step {step}")
            writer.grab_frame()


def _scatter(ax: matplotlib.axes.Axes, points: np.ndarray, color: str, label: str) -> PathCollection:
    return ax.scatter(points[:, 0], points[:, 1], s=6, c=color, alpha=0.7, linewidths=0, label=label)


def _frame(ax: matplotlib.axes.Axes, clouds: Sequence[np.ndarray]) -> None:
    """One frame for all that is shown, so that nothing jumps."""
    every = np.concatenate(clouds)
    low, high = every.min(0), every.max(0)
    edge = MARGIN * max(float((high - low).max()), 1e-6)
    ax.set_xlim(low[0] - edge, high[0] + edge)
    ax.set_ylim(low[1] - edge, high[1] + edge)
    ax.set_aspect("equal")
