"""Latent samplers: kernels, one driver, schedules, and what the `sampler` group builds."""

from .chain import Chain, sample_chain
from .gradients import sampling_mode, value_and_grad
from .kernel import Info, Kernel
from .kla import KLA
from .latent import LatentSampler
from .refiner import BaseSampler, Refiner, Samples
from .schedules import Constant, StepDecay
from .sir import SIR
from .ula import ULA

__all__ = [
    "KLA",
    "SIR",
    "ULA",
    "BaseSampler",
    "Chain",
    "Constant",
    "Info",
    "Kernel",
    "LatentSampler",
    "Refiner",
    "Samples",
    "StepDecay",
    "sample_chain",
    "sampling_mode",
    "value_and_grad",
]
