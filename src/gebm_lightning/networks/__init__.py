"""Networks for base and energy: plain modules that know nothing of objectives, samplers or trainers."""

from .clip import Clipped
from .dcgan import DCGANBase, DCGANEnergy
from .external import ExternalBase, ExternalEnergy
from .mlp import MLPBase, MLPEnergy
from .resnet import ResNetBase, ResNetEnergy
from .sngan import SNGANBase, SNGANEnergy

__all__ = [
    "Clipped",
    "DCGANBase",
    "DCGANEnergy",
    "ExternalBase",
    "ExternalEnergy",
    "MLPBase",
    "MLPEnergy",
    "ResNetBase",
    "ResNetEnergy",
    "SNGANBase",
    "SNGANEnergy",
]
