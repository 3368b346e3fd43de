"""The models by short names, as the command line takes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any, Final

from ..errors import ConvError
from .dcgan import dcgan_discriminator, dcgan_generator
from .resnet import DEPTHS, resnet, wide_resnet, wide_resnet_cifar
from .sequential import Sequential
from .small import cifar_vgg, mlp, mnist_net
from .vgg import vgg

CATALOGUE: Final[dict[str, Callable[..., Sequential]]] = {
    "vgg11": partial(vgg, "A"),
    "vgg11_lrn": partial(vgg, "A-LRN"),
    "vgg13": partial(vgg, "B"),
    "vgg16": partial(vgg, "D"),
    "vgg16_1x1": partial(vgg, "C"),
    "vgg19": partial(vgg, "E"),
    **{f"resnet{depth}": partial(resnet, depth) for depth in DEPTHS},
    "wide_resnet50": partial(wide_resnet, 50),
    "wide_resnet101": partial(wide_resnet, 101),
    "wide_resnet_cifar": wide_resnet_cifar,
    "dcgan_generator": dcgan_generator,
    "dcgan_discriminator": dcgan_discriminator,
    "cifar_vgg": cifar_vgg,
    "mnist_net": mnist_net,
    "mlp": mlp,
}


def catalogue_name(name: str) -> str:
    """`name` as it is listed; 'VGG-16' and 'wide-resnet-50' are understood. Raises `ConvError` with all names."""
    wanted = name.lower().replace("-", "_")
    for known in CATALOGUE:
        if wanted.replace("_", "") == known.replace("_", ""):
            return known
    raise ConvError(f"no model is named {name!r}; there are {', '.join(CATALOGUE)}.")


def from_catalogue(
    name: str, size: tuple[int, int] | None = None, classes: int | None = None, seed: int | None = None
) -> Sequential:
    """The model of that name for images of `size` (height, width) and so many classes; by default its own.

    Raises `ConvError` for an unknown name, a size that the model does not take, and classes where it has none.
    """
    known = catalogue_name(name)
    maker = CATALOGUE[known]
    accepted = signature(maker).parameters
    options: dict[str, Any] = {"seed": seed}
    if classes is not None:
        if "classes" not in accepted:
            raise ConvError(f"{known} has no classes; leave out classes={classes}.")
        options["classes"] = classes
    if size is not None and "input_shape" in accepted:
        options["input_shape"] = (*size, accepted["input_shape"].default[2])
    elif size is not None:
        if size[0] != size[1]:
            raise ConvError(f"the images of {known} are square, but got {size[0]}x{size[1]}.")
        options["image"] = size[0]
    return maker(**options)
