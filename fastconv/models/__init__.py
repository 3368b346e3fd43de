"""Models: `Sequential` and the nets of the literature. None allocates a weight before it is used."""

from .dcgan import dcgan_discriminator, dcgan_generator
from .resnet import resnet, wide_resnet, wide_resnet_cifar
from .sequential import Sequential
from .small import cifar_vgg, mlp, mnist_net
from .vgg import vgg

__all__ = [
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
