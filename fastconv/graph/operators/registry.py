"""How operators are written: a function of a `Call` and its input arrays, registered for an operator set and later.

    @operator("Relu")
    def relu(call, x):
        return np.maximum(x, 0, out=call.into(x))

An input that was left out is None. The result is an array, or a tuple where there are several outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np

from ..._core.arrays import Array
from ..._core.words import Shape
from ..errors import OnnxError
from ..graph import Node
from ..half_weights import options_of
from ..halves import in_float32
from ..memory import Pool

LATEST_OPSET: Final = 28
INTERNAL: Final = "fastconv"  # the domain of what `fuse` makes

Function = Callable[..., Any]


class Operator:
    """A function, the operator set from which it holds, and the inputs whose values decide the result's shape."""

    def __init__(self, function: Function, since: int, shaping: Sequence[int] | str, pure: bool) -> None:
        self.function, self.since, self.pure = function, since, pure
        self.shaping = shaping

    def shaped_by(self, node: Node) -> list[str]:
        """The inputs whose values the shape of the result depends on."""
        if self.shaping == "all":
            return [name for name in node.inputs if name]
        return [name for index in self.shaping if (name := node.input(int(index)))]


_operators: dict[tuple[str, str], list[Operator]] = {}


def operator(
    *names: str, since: int = 1, shaping: Sequence[int] | str = (), pure: bool = True, as_stored: bool = False,
    domain: str = "",
) -> Callable[[Function], Function]:
    """Register a function as these operators of operator set `since` and later.

    `pure` is False where the same inputs may give another result (random numbers). `as_stored` is for what takes
    16-bit floats as they are: what moves elements, is about types, or calls other operators. For all others they are
    widened to float32 and results rounded (`halves`).
    """

    def register(function: Function) -> Function:
        for name in names:
            known = _operators.setdefault((domain, name), [])
            known.append(Operator(function if as_stored else in_float32(function), since, shaping, pure))
            known.sort(key=lambda one: -one.since)
        return function

    return register


def find(domain: str, op_type: str, version: int) -> Operator | None:
    """The operator as it is in this version of its domain."""
    return next((one for one in _operators.get((domain, op_type), ()) if one.since <= version), None)


def repeatable(node: Node) -> bool:
    """Whether a node gives the same results for the same inputs; one with bodies if all nodes in them do."""
    found = find(node.domain, node.op_type, node.version)
    if found is None or not found.pure:
        return False
    return all(repeatable(inner) for body in node.bodies() for inner in body.nodes)


def names(domain: str = "") -> dict[str, int]:
    """Every operator of a domain and the operator set from which it is there."""
    return {name: known[-1].since for (where, name), known in sorted(_operators.items()) if where == domain}


class Told(NamedTuple):
    """What `explain` and `profile` show of a node besides its shapes and its time."""

    how: str = ""
    packed_bytes: int = 0
    why: tuple[str, ...] = ()  # the reason for it, then why not each of the others
    reach: tuple[tuple[int, ...], tuple[Fraction, ...]] | None = None  # see `Call.slides`


TOLD: Final = "told"  # where a call's state has it
UNTOLD: Final = Told()


class Call:
    """A node at work: its attributes, and the memory for its results. `state` is kept from run to run."""

    def __init__(self, node: Node, pool: Pool, threads: int | None, constants: Container[str] = ()) -> None:
        self.node, self.pool, self.threads = node, pool, threads
        self.state: dict[Any, Any] = {}
        self.dying: tuple[int, ...] = ()  # inputs that nobody reads afterwards
        self.inputs: Sequence[Any] = ()
        self._ending: set[int] = set()  # the dying ones of these inputs by their ids
        self.macs = 0  # multiply-adds by the definition; 0 where nobody counted
        self.target: Callable[[Shape, Any], Array | None] | None = None  # where the first result goes, if it fits
        self._constant = [name in constants for name in node.inputs]
        self.native, self.asked = False, 0  # of this run: see `natively`; the results that it had memory for

    def begin(self, inputs: Sequence[Any]) -> None:
        """The node is about to run on these."""
        self.inputs, self.native, self.asked = inputs, False, 0
        self._ending = {id(inputs[index]) for index in self.dying}

    def end(self) -> None:
        """It has run."""
        self.inputs, self._ending = (), set()

    def natively(self) -> None:
        """Say that native works did all that was done to values in this run: a net does them again by themselves."""
        self.native = True

    def is_constant(self, index: int) -> bool:
        """Whether an input is the same in every run."""
        return index < len(self._constant) and self._constant[index]

    def settled(self, first: int = 1) -> bool:
        """Whether every input from number `first` on is left out or the same in every run."""
        return all(not name or self.is_constant(at) for at, name in enumerate(self.node.inputs) if at >= first)

    def describe(self, how: str, packed_bytes: int = 0, why: tuple[str, ...] = ()) -> None:
        """How the node is done, and why so, for `explain` and `profile`."""
        self.state[TOLD] = Told(how, packed_bytes, why, self.told.reach)

    def describe_later(self, tell: Callable[[], tuple[str, int, tuple[str, ...]]]) -> None:
        """`describe`, with what `tell` gives when somebody asks: a net of many nodes is run sooner."""
        reach = self.told.reach
        self.state[TOLD] = lambda: Told(*tell(), reach)

    def slides(self, extent: Sequence[int], stride: Sequence[int | Fraction]) -> None:
        """What one result looks at along the spatial axes, and how far the next one's begins, both in pixels of the
        first input: for the receptive field."""
        self.state[TOLD] = self.told._replace(reach=(tuple(extent), tuple(map(Fraction, stride))))

    @property
    def told(self) -> Told:
        """What the node said of itself, in this program or in another one for the same samples."""
        found: Told | Callable[[], Told] = self.state.get(TOLD, UNTOLD)
        if not isinstance(found, Told):
            found = self.state[TOLD] = found()
        return found

    @property
    def version(self) -> int:
        return self.node.version

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        found = self.node.attributes.get(name)
        return default if found is None else found

    @property
    def halves(self) -> dict[str, Any]:
        """`weights_dtype` or `precision` of the plans that it makes, if any."""
        return options_of(self.node)

    def error(self, text: str) -> OnnxError:
        """What is wrong with this node."""
        return OnnxError(f"the {self.node.label}: {text}")

    def numbers(self, name: str, given: Array | None, default: list[int] | None = None) -> list[int] | None:
        """Integers that older operator sets have as an attribute and later ones as an input."""
        if given is not None:
            return [int(number) for number in np.asarray(given).ravel().tolist()]
        found = self.get(name)
        if found is None:
            return default
        return [int(number) for number in (found if isinstance(found, list) else [found])]

    def axis(self, rank: int, default: int = 0, name: str = "axis") -> int:
        """The attribute `axis` counted from the front."""
        return self.from_front(int(self.get(name, default)), rank)

    def from_front(self, axis: int, rank: int) -> int:
        """An axis that may be counted from the end."""
        if not -rank <= axis < max(rank, 1):
            raise self.error(f"axis {axis} is not one of the {rank} axes of its input.")
        return axis % rank if rank else 0

    # ---- memory ---------------------------------------------------------------------------------------------------

    def place(self, shape: Sequence[int], dtype: Any) -> Array | None:
        """Where the first result should lie, if it fits."""
        self.asked += 1
        return None if self.target is None else self.target(tuple(shape), dtype)

    def empty(self, shape: Sequence[int], dtype: Any) -> Array:
        """An uninitialised result."""
        sizes = tuple(int(size) for size in shape)
        self.check(sizes, dtype)
        self.asked += 1
        return self.pool.empty(sizes, dtype)

    def check(self, shape: Sequence[int], dtype: Any) -> Shape:
        """Refuse a result that is too large before it is allocated."""
        sizes = tuple(int(size) for size in shape)
        if any(size < 0 for size in sizes):
            raise self.error(f"its result would have the shape {sizes}.")
        self.pool.check(sizes, dtype, self.node.label)
        return sizes

    def empty_channels_last(self, shape: Sequence[int], dtype: Any) -> Array:
        """An uninitialised (N, C, H, W) result that lies as (N, H, W, C), in the `target` if there is one."""
        if (place := self.place(shape, dtype)) is not None:
            return place
        batch, channels, *sizes = shape
        last = len(sizes) + 1
        return self.empty((batch, *sizes, channels), dtype).transpose(0, last, *range(1, last))

    def like(self, array: Array, dtype: Any = None) -> Array:
        """An uninitialised array of the shape and the order in memory of another."""
        return self.ordered_like(array, array.shape, dtype)

    def ordered_like(self, array: Array, shape: Sequence[int], dtype: Any = None) -> Array:
        """An uninitialised array of another shape whose axes lie in memory in the order of those of `array`."""
        kind = array.dtype if dtype is None else np.dtype(dtype)
        if array.flags.c_contiguous:
            return self.empty(shape, kind)
        order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
        return self.empty([shape[axis] for axis in order], kind).transpose(np.argsort(order))

    def result_like(self, array: Array, shape: Sequence[int], dtype: Any = None) -> Array:
        """An uninitialised result: the `target` if there is one, else as `ordered_like`."""
        kind = array.dtype if dtype is None else np.dtype(dtype)
        place = None if self.target is None else self.target(tuple(shape), kind)
        return self.ordered_like(array, shape, kind) if place is None else place

    def into(self, *arrays: Any, shape: Shape | None = None, dtype: Any = None, fresh: bool = False) -> Array:
        """Where an elementwise result of these arrays goes: into one of them that nobody reads afterwards, if any.

        `fresh` asks for memory of its own, as a result does that is given away.
        """
        wanted = np.broadcast_shapes(*(np.shape(a) for a in arrays)) if shape is None else shape
        kind = np.dtype(arrays[0].dtype if dtype is None else dtype)
        if (place := self.place(wanted, kind)) is not None:
            return place
        model = None
        for array in arrays:
            if isinstance(array, np.ndarray) and array.shape == wanted:
                if (
                    not (fresh or self.pool.anew)
                    and array.dtype == kind
                    and array.flags.writeable
                    and id(array) in self._ending
                    and self.pool.alone(array)
                ):
                    return array
                model = array if model is None else model
        return self.empty(wanted, kind) if model is None else self.like(model, kind)
