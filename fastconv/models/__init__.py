"""Models: `Sequential` and the nets of the literature."""

from .sequential import Sequential
from .small import cifar_vgg, mlp, mnist_net

__all__ = ["Sequential", "cifar_vgg", "mlp", "mnist_net"]
