"""What moves or filters samples without being a chain for the posterior, and the calibration that these methods live by."""

from .calibration import Calibrated, CalibratedEnergy, calibrate, calibrated
from .dgflow import DGFlow
from .dot import DOT
from .drs import DRS
from .mhgan import MHGAN

__all__ = ["DOT", "DRS", "MHGAN", "Calibrated", "CalibratedEnergy", "DGFlow", "calibrate", "calibrated"]
