"""Latent samplers: kernels, one driver, schedules, and what the `sampler` group builds."""

from .ais import AIS, LogZ, ais_log_z
from .chain import Chain, sample_chain
from .cost import Counted
from .diagnostics import effective_sample_size, split_rhat
from .gradients import sampling_mode, value_and_grad
from .hmc import HMC
from .imh import IMH
from .kernel import Info, Kernel
from .kla import KLA
from .latent import LatentSampler
from .mala import MALA
from .refiner import BaseSampler, Fitted, Refiner, Samples
from .rwm import RWM
from .schedules import Constant, Ramp, StepDecay
from .sir import SIR
from .tempering import ParallelTempering
from .tuning import DualAveraging
from .ula import ULA

__all__ = [
    "AIS",
    "HMC",
    "IMH",
    "KLA",
    "MALA",
    "RWM",
    "SIR",
    "ULA",
    "BaseSampler",
    "Chain",
    "Constant",
    "Counted",
    "DualAveraging",
    "Fitted",
    "Info",
    "Kernel",
    "LatentSampler",
    "LogZ",
    "ParallelTempering",
    "Ramp",
    "Refiner",
    "Samples",
    "StepDecay",
    "ais_log_z",
    "effective_sample_size",
    "sample_chain",
    "sampling_mode",
    "split_rhat",
    "value_and_grad",
]
