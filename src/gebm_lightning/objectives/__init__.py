"""What the two players minimise, given raw critic outputs; each objective says how its critic becomes an energy."""

from .base import Objective, ScaledEnergy
from .donsker_varadhan import DonskerVaradhan
from .fgan import FGAN
from .gan import Hinge, LeastSquares, Logistic
from .kale import KALE
from .mmd import MMD, WitnessPenalty
from .penalties import GradientPenalty, L2Penalty
from .wasserstein import Wasserstein

__all__ = [
    "FGAN",
    "KALE",
    "MMD",
    "DonskerVaradhan",
    "GradientPenalty",
    "Hinge",
    "L2Penalty",
    "LeastSquares",
    "Logistic",
    "Objective",
    "ScaledEnergy",
    "Wasserstein",
    "WitnessPenalty",
]
