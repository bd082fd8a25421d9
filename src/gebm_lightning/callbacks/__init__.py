"""What happens beside training, at a cadence counted in base updates."""

from .cadence import BaseUpdateCallback
from .calibration import Calibration
from .checkpoint import Checkpoint
from .ema import EMA
from .evaluation import Evaluation
from .guard import NonFiniteGuard
from .monitor import Monitor
from .progress import Progress
from .reduce_lr import ReduceLROnKID
from .sampling import LatentSampling
from .validation import BestOnValidation

__all__ = [
    "EMA",
    "BaseUpdateCallback",
    "BestOnValidation",
    "Calibration",
    "Checkpoint",
    "Evaluation",
    "LatentSampling",
    "Monitor",
    "NonFiniteGuard",
    "Progress",
    "ReduceLROnKID",
]
