"""Models: `Sequential`, `Model` and the nets of the literature. None allocates a weight before it is used."""

from ..layers.symbolic import input_tensor as Input
from .dcgan import dcgan_discriminator, dcgan_generator
from .functional import Model
from .resnet import resnet, wide_resnet, wide_resnet_cifar
from .sequential import Sequential
from .small import cifar_vgg, mlp, mnist_net
from .vgg import vgg

__all__ = [
    "Input",
    "Model",
    "Sequential",
    "cifar_vgg",
    "dcgan_discriminator",
    "dcgan_generator",
    "mlp",
    "mnist_net",
    "resnet",
    "vgg",
    "wide_resnet",
    "wide_resnet_cifar",
]
