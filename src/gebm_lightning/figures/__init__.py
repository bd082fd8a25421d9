"""Every figure of the subject as a function that returns a matplotlib Figure; `python -m gebm_lightning.figures OUT`.

`FIGURES` holds those that need nothing but a seed, by name, `RUN_FIGURES` those that take the folder of a run.
"""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from .chains import moving_between_modes, sampling_at_modes
from .fenchel import fenchel_dual, variational_bound
from .flows import kale_flow, mmd_flow
from .kale import kale_below_w1, kale_smoothie, unequal_variances
from .plane import right_support_wrong_mass, toy_on_a_line, wrong_support_wrong_mass
from .scores import relative_fid, relative_fid_in_training
from .supports import disjoint_supports
from .witnesses import mmd_witness, wasserstein_witness

FIGURES: dict[str, Callable[..., Figure]] = {
    figure.__name__: figure
    for figure in (
        wasserstein_witness,
        mmd_witness,
        disjoint_supports,
        fenchel_dual,
        variational_bound,
        kale_smoothie,
        unequal_variances,
        kale_below_w1,
        right_support_wrong_mass,
        wrong_support_wrong_mass,
        toy_on_a_line,
        sampling_at_modes,
        moving_between_modes,
        mmd_flow,
        kale_flow,
    )
}
"""Figures that need nothing but a seed, by name."""
RUN_FIGURES: dict[str, Callable[..., Figure]] = {
    figure.__name__: figure for figure in (relative_fid, relative_fid_in_training)
}
"""Figures that take the folder of a run, by name."""

__all__ = [
    "FIGURES",
    "RUN_FIGURES",
    "disjoint_supports",
    "fenchel_dual",
    "kale_below_w1",
    "kale_flow",
    "kale_smoothie",
    "mmd_flow",
    "mmd_witness",
    "moving_between_modes",
    "relative_fid",
    "relative_fid_in_training",
    "right_support_wrong_mass",
    "sampling_at_modes",
    "toy_on_a_line",
    "unequal_variances",
    "variational_bound",
    "wasserstein_witness",
    "wrong_support_wrong_mass",
]
