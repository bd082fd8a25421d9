"""What the two players minimise, given raw critic outputs; each objective says how its critic becomes an energy."""

from .base import Objective
from .donsker_varadhan import DonskerVaradhan
from .kale import KALE
from .penalties import GradientPenalty, L2Penalty

__all__ = ["KALE", "DonskerVaradhan", "GradientPenalty", "L2Penalty", "Objective"]
