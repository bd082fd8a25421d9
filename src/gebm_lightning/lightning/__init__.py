"""The Lightning side of training: the alternating module, the trainer, EMA and checkpoints."""

from .module import GEBMModule
from .optim import Optim
from .schedule import ConstantSchedule, PaperSchedule
from .trainer import make_trainer

__all__ = ["ConstantSchedule", "GEBMModule", "Optim", "PaperSchedule", "make_trainer"]
