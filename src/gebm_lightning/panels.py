"""What a look at a run shows, once: the panels of wandb's dashboard and of the local report, by the names that are logged."""

from __future__ import annotations

from typing import NamedTuple


class Panel(NamedTuple):
    """One plot over base updates: all metrics whose whole name `keys`, a regular expression, matches; `log` for the y-axis."""

    section: str
    title: str
    keys: str
    log: bool = False


PANELS = (
    Panel("Players", "losses", r"loss/(energy|base)"),
    Panel("Players", "penalties", r"penalty/.+"),
    Panel("Players", "gradient norms before clipping", r"grad_norm/(energy|base)", log=True),
    Panel("Bounds", "KALE", r"(train|val)/(eval_)?kale"),
    Panel("Bounds", "Donsker–Varadhan", r"(train|val)/(eval_)?donsker_varadhan"),
    Panel("Bounds", "c and log Z", r"train/(c|c_hat|eval_c)|(train|val)/eval_log_z"),
    Panel("Critic", "spectral norms", r"spectral_norm/.+", log=True),
    Panel("FID", "FID of the base", r"[^/]+/fid_[^/]+/base"),
    Panel("FID", "FID of the GEBM", r"[^/]+/fid_[^/]+/(short_run|equilibrium)"),
    Panel("FID", "FID relative to the base's", r"[^/]+/relative_fid/(short_run|equilibrium)"),
)
PICTURES = ("grid", "strip", "relative_fid")
"""Of `images/`, by name."""

TABLE = "comparison"
"""The methods' final scores."""
