"""Symbolic tensors: what layers give when they are called on one, so that `Model` finds the net between them.

A symbolic tensor has a shape and an element type and no values. Every call is a node that knows the layer and what went
in; nodes are numbered as they are made, so that the order of their numbers is one in which they can run.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .._core.words import MOST_AXES, integer
from ..errors import ConvError, ConvTypeError

if TYPE_CHECKING:
    from .base import Layer

Sizes = tuple[int | None, ...]
DTYPES = ("float32", "float64")
_numbers = count()


class Symbolic:
    """The result of a layer in a net that is not made yet, or an `Input`.

    Parameters
    ----------
    shape : tuple of int or None
        With the batch, which is None, before it.
    dtype : dtype
        The element type.
    node : Node
        The call that makes it.
    """

    __slots__ = ("dtype", "node", "shape")
    __array_ufunc__ = None  # arrays leave sums and products with it to the methods below

    def __init__(self, shape: Sizes, dtype: np.dtype[Any], node: Node) -> None:
        self.shape, self.dtype, self.node = shape, dtype, node

    @property
    def ndim(self) -> int:
        """The number of axes, that of the batch included."""
        return len(self.shape)

    @property
    def name(self) -> str:
        """The name of the layer that makes it, or of the input."""
        layer = self.node.layer
        return self.node.name or "input" if layer is None else layer.name

    def __repr__(self) -> str:
        return f"<Symbolic {self.name}: {self.shape} {self.dtype}>"

    def _merged(self, other: object, kind: str) -> Any:
        if not isinstance(other, Symbolic):
            raise ConvTypeError(
                f"{self!r} can be merged with another symbolic tensor, but got a {type(other).__name__}; scale or "
                "shift values by a layer, or before the net."
            )
        from . import merging  # here, as layers are built on this module

        return getattr(merging, kind)(dtype=self.dtype.name)([self, other])

    def __add__(self, other: object) -> Any:
        return self._merged(other, "Add")

    def __sub__(self, other: object) -> Any:
        return self._merged(other, "Subtract")

    def __mul__(self, other: object) -> Any:
        return self._merged(other, "Multiply")

    __radd__, __rmul__ = __add__, __mul__  # of what is no symbolic tensor: refused above

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise ConvTypeError(
            f"{self!r} has no values: it stands for the result of a layer until fastconv.Model(inputs, outputs) makes "
            "the net. Call layers on it, such as layers.Add()([a, b]) or layers.Reshape(shape)(x)."
        )

    __array__ = __bool__ = __float__ = __int__ = __iter__ = __getitem__ = __len__ = _refuse


class Node:
    """A call of a layer on symbolic tensors; of an `Input`, which has a name in place of a layer.

    Parameters
    ----------
    layer : Layer or None
        What was called.
    inputs : sequence of Symbolic
        On what.
    several : bool
        Whether as a list.
    training : bool, optional
        False where the call leaves training aside.
    name : str, optional
        Of an input.
    """

    __slots__ = ("inputs", "layer", "name", "number", "outputs", "several", "training")

    def __init__(
        self, layer: Layer | None, inputs: Sequence[Symbolic], several: bool, training: bool | None,
        name: str | None = None,
    ) -> None:  # fmt: skip
        self.layer, self.inputs, self.several, self.training, self.name = layer, tuple(inputs), several, training, name
        self.number = next(_numbers)
        self.outputs: tuple[Symbolic, ...] = ()


def input_tensor(shape: Sequence[int | None], dtype: str = "float32", name: str | None = None) -> Symbolic:
    """Begin a net: a symbolic tensor for samples of this shape.

    Parameters
    ----------
    shape : sequence of int or None
        Of one sample, without the batch, such as (32, 32, 3); None where any size may come.
    dtype : {'float32', 'float64'}
        The element type, that of the layers that are called on it.
    name : str, optional
        By which `fit` and `predict` take the array out of a dictionary; input, input_1, ... if not given.

    Returns
    -------
    Symbolic
        For layers to be called on.

    Raises
    ------
    ConvError, ConvTypeError
        For what is no shape of a sample.

    Examples
    --------
    >>> import fastconv
    >>> x = fastconv.Input((32, 32, 3))
    >>> fastconv.layers.Conv2D(8, 3)(x).shape
    (None, 30, 30, 8)
    """
    if not isinstance(shape, (tuple, list)):
        raise ConvTypeError(f"shape must be a tuple such as (32, 32, 3) or (10,), but got {shape!r}.")
    sizes = tuple(None if size is None else integer("shape", size) for size in shape)
    if not 1 <= len(sizes) <= MOST_AXES + 1 or min(size for size in (*sizes, 0) if size is not None) < 0:
        raise ConvError(
            f"shape must have one to {MOST_AXES + 1} sizes of at least 0, without the batch, but got {tuple(shape)}."
        )
    if name is not None and not isinstance(name, str):
        raise ConvTypeError(f"name must be a string, but got {name!r} of type {type(name).__name__}.")
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind.name not in DTYPES:
        raise ConvTypeError(f"dtype of an Input must be 'float32' or 'float64', but got {dtype!r}.")
    node = Node(None, (), False, None, name)
    made = Symbolic((None, *sizes), kind, node)
    node.outputs = (made,)
    return made


def is_symbolic(x: object) -> bool:
    """Whether a layer is called on a symbolic tensor or on a list that holds one."""
    kind = type(x)  # an array may say of itself whatever it likes
    if issubclass(kind, Symbolic):
        return True
    return kind in (list, tuple) and any(issubclass(type(value), Symbolic) for value in x)  # type: ignore[attr-defined]


def called(layer: Layer, x: Any, training: bool | None) -> Any:
    """The symbolic tensor, or a list of them, that a layer makes of one or of a list; the layer's weights get their
    shapes, if all sizes are known."""
    from .base import Sample  # here, as layers are built on this module

    if training:
        raise ConvError(
            f"{layer.name}: training=True cannot be fixed in a net: it would drop and normalise in predict too. Leave "
            "it out, or use Keras with fastconv.keras.install()."
        )
    given = _listed(layer, x)
    for value in given:
        if value.dtype != layer.dtype:
            raise ConvTypeError(
                f"{layer.name} computes in {layer.dtype}, but is called on {value!r}; give both the same dtype."
            )
    samples = [Sample(value.shape[1:]) for value in given]
    wanted: Any = samples if layer.merges else samples[0]
    made: Any = layer.output_shape(wanted)
    if not any(None in sample for sample in samples):
        layer.build(wanted)
    node = Node(layer, given, layer.merges, training)
    several = isinstance(made, list)
    node.outputs = tuple(Symbolic((None, *shape), layer.dtype, node) for shape in (made if several else [made]))
    layer._nodes.append(node)
    return list(node.outputs) if several else node.outputs[0]


def _listed(layer: Layer, x: Any) -> list[Symbolic]:
    """The symbolic tensors that a layer is called on, as many as it takes."""
    given = list(x) if isinstance(x, (list, tuple)) else [x]
    for value in given:
        if not isinstance(value, Symbolic):
            raise ConvTypeError(
                f"{layer.name} is called on symbolic tensors together with a {type(value).__name__}; call it on arrays "
                "alone or on symbolic tensors alone."
            )
    if layer.merges and not isinstance(x, (list, tuple)):
        raise ConvTypeError(f"{layer.name} takes several inputs: call it on a list, such as {layer.name}([a, b]).")
    if not layer.merges and len(given) != 1:
        raise ConvError(
            f"{layer.name} takes one input, but is called on a list of {len(given)}; merge them first, such as "
            "layers.Add()(list) or layers.Concatenate()(list)."
        )
    return given
