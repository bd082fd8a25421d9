"""Networks for base and energy: plain modules that know nothing of objectives, samplers or trainers."""

from .dcgan import DCGANBase, DCGANEnergy
from .mlp import MLPBase, MLPEnergy

__all__ = ["DCGANBase", "DCGANEnergy", "MLPBase", "MLPEnergy"]
