"""What moves or filters samples without being a chain for the posterior, and the calibration that these methods live by."""

from .calibration import Calibrated, CalibratedEnergy, calibrate, calibrated
from .dgflow import DGFlow
from .dot import DOT
from .drs import DRS
from .flow import Flow
from .kale_flow import KALEFlow
from .mhgan import MHGAN
from .mmd_flow import MMDFlow

__all__ = [
    "DOT",
    "DRS",
    "MHGAN",
    "Calibrated",
    "CalibratedEnergy",
    "DGFlow",
    "Flow",
    "KALEFlow",
    "MMDFlow",
    "calibrate",
    "calibrated",
]
