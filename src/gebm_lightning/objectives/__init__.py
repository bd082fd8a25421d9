"""What the two players minimise, given raw critic outputs; each objective says how its critic becomes an energy."""

from .base import Objective, ScaledEnergy
from .contrastive import ContrastiveDivergence
from .donsker_varadhan import DonskerVaradhan
from .fgan import FGAN
from .gan import Hinge, LeastSquares, Logistic
from .kale import KALE
from .likelihood import NCE, MaximumLikelihood
from .mmd import MMD, WitnessPenalty
from .penalties import GradientPenalty, L2Penalty, SpectralPenalty
from .score_matching import ScoreMatching
from .vae import ELBO
from .wasserstein import Wasserstein

__all__ = [
    "ELBO",
    "FGAN",
    "KALE",
    "MMD",
    "NCE",
    "ContrastiveDivergence",
    "DonskerVaradhan",
    "GradientPenalty",
    "Hinge",
    "L2Penalty",
    "LeastSquares",
    "Logistic",
    "MaximumLikelihood",
    "Objective",
    "ScaledEnergy",
    "ScoreMatching",
    "SpectralPenalty",
    "Wasserstein",
    "WitnessPenalty",
]
