"""Networks for base and energy: plain modules that know nothing of objectives, samplers or trainers."""

from .clip import Clipped
from .dcgan import DCGANBase, DCGANEnergy
from .external import ExternalBase, ExternalEnergy
from .flow import DiagonalGaussian, FlowBase, FlowEnergy, Identity, Invertible
from .mlp import MLPBase, MLPEnergy
from .resnet import ResNetBase, ResNetEnergy
from .sngan import SNGANBase, SNGANEnergy
from .vae import VAE

__all__ = [
    "VAE",
    "Clipped",
    "DCGANBase",
    "DCGANEnergy",
    "DiagonalGaussian",
    "ExternalBase",
    "ExternalEnergy",
    "FlowBase",
    "FlowEnergy",
    "Identity",
    "Invertible",
    "MLPBase",
    "MLPEnergy",
    "ResNetBase",
    "ResNetEnergy",
    "SNGANBase",
    "SNGANEnergy",
]
