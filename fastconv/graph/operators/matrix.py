"""Matrix products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, Final

import numpy as np

from ... import _native
from ..._core.arrays import Array
from ..._core.ask_plans import prepared
from ..._core.problem import Use
from ..._core.steps import ADD, MUL, SERIAL_BELOW, TYPES
from ..._core.sums import product
from ..._core.threads import effective
from ..._core.words import Shape
from ..._native import LONG_SUM
from .chain import merged
from .convolution import activate
from .moving import moved, reshaped, views_as
from .registry import INTERNAL, Call, operator

FEW_PRODUCTS: Final = 1 << 21  # for which a second thread does not pay
MOST_BATCH: Final = 6  # axes of matrices that the native product takes


@operator("MatMul")
def matmul(call: Call, a: Array, b: Array) -> Array:
    """As `numpy.matmul`."""
    shape = _check(call, a, b)
    out = call.empty(shape, a.dtype)
    if multiplied(call, out, a, b):
        call.natively()
    return out.reshape([*shape[:-2], *shape[-2:][: a.ndim > 1], *shape[-1:][: b.ndim > 1]])


def multiplied(call: Call, out: Array, a: Array, b: Array) -> bool:
    """out (..., M, N) = a @ b; whether natively."""
    call.macs = out.size * a.shape[-1]
    if a.ndim > 1 and b.ndim == 2 and views_as(a.shape, a.strides, (a.size // max(1, a.shape[-1]), a.shape[-1])):
        a, out = a.reshape(-1, a.shape[-1]), out.reshape(-1, out.shape[-1])  # one matrix for all of the batch
    left = a if a.ndim > 1 else a[None]
    right = b if b.ndim > 1 else b[:, None]
    kinds = a.dtype == b.dtype and a.dtype in TYPES
    if not kinds or out.ndim - 2 > MOST_BATCH or any(s % x.itemsize for x in (a, b) for s in x.strides):
        out[...] = product(left, right)
        return False
    batch = out.shape[:-2]
    if left.shape[:-2] != batch:
        left = np.broadcast_to(left, (*batch, *left.shape[-2:]))
    if right.shape[:-2] != batch:
        right = np.broadcast_to(right, (*batch, *right.shape[-2:]))
    _native.matmul(out, left, right, effective(call.threads))
    return True


def _check(call: Call, a: Array, b: Array) -> Shape:
    """The shape (..., M, N) of a product, of length 1 along an axis that an input lacks; refuses what does not exist
    or is too large."""
    left = a.shape if a.ndim > 1 else (1, *a.shape)
    right = b.shape if b.ndim > 1 else (*b.shape, 1)
    try:
        if not a.ndim or not b.ndim or left[-1] != right[-2]:
            raise ValueError
        batch = np.broadcast_shapes(left[:-2], right[:-2])
    except ValueError:
        raise call.error(f"inputs of shape {a.shape} and {b.shape} have no product.") from None
    return call.check((*batch, left[-2], right[-1]), a.dtype)


@operator("Gemm")
def gemm(call: Call, a: Array, b: Array, c: Array | None = None) -> Array:
    """alpha A B + beta C, either matrix transposed first."""
    if a.ndim != 2 or b.ndim != 2:
        raise call.error(f"inputs of shape {a.shape} and {b.shape} are no matrices.")
    a = a.T if call.get("transA", 0) else a
    b = b.T if call.get("transB", 0) else b
    _check(call, a, b)
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    out = call.empty((a.shape[0], b.shape[1]), a.dtype)
    native = multiplied(call, out, a, b)
    if alpha != 1.0:
        native &= _step(call, out, MUL, alpha)
    if c is not None:
        if beta != 1.0:
            scaled = call.empty(c.shape, a.dtype)
            native &= moved(call, scaled, c) and _step(call, scaled, MUL, beta)
            c = scaled
        native &= _step(call, out, ADD, c)
    if native:
        call.natively()
    return out


def _step(call: Call, out: Array, code: int, operand: Any) -> bool:
    """out = out * operand or out + operand, an array that is repeated or a number; whether natively."""
    threads = effective(call.threads) if out.size >= SERIAL_BELOW else 1
    if out.dtype in TYPES and out.size:
        if not isinstance(operand, np.ndarray):
            flat = ((1, out.size, 1), ((out.itemsize,) * 3,) * 2)
            _native.elementwise(out, out, (), *flat, ((code, -1, operand),), threads)
            return True
        if operand.dtype == out.dtype:
            shape, strides = merged(out, out, np.broadcast_to(operand, out.shape))
            _native.elementwise(out, out, (operand,), shape, strides, ((code, 0, 0.0),), threads)
            return True
    (np.multiply if code == MUL else np.add)(out, out.dtype.type(operand) if code == MUL else operand, out=out)
    return False


@operator("Dense", domain=INTERNAL)
def dense(call: Call, x: Array, weight: Array, bias: Array | None = None) -> Any:
    """activation(x @ weight + bias) for a constant weight (inputs, outputs): a 1 x 1 convolution of rows of pixels.

    A plan's packed weights stream through at the speed of memory, and no second library's waiting threads take the
    processors from the convolutions around.
    """
    inputs, outputs = weight.shape
    if not x.ndim or x.shape[-1] != inputs:
        raise call.error(f"inputs of shape {x.shape} and {weight.shape} have no product.")
    shape = call.check((*x.shape[:-1], outputs), x.dtype)
    rows = x.size // inputs if inputs else 0
    out = call.empty(shape, x.dtype)
    call.macs = rows * weight.size
    if x.dtype != weight.dtype or not rows or not outputs:
        multiplied(call, out, x, weight)
        out = out if bias is None else np.add(out, bias, out=out)
        return activate(call, out, call.get("activation"))
    plan = call.state.get(rows)
    if plan is None:
        plan = call.state[rows] = prepared(
            Use.NETWORK, (1, 1, rows, inputs), weight.reshape(1, 1, inputs, outputs), bias, data_format="NHWC",
            activation=call.get("activation"), num_threads=call.threads, **call.halves,
        )  # fmt: skip
        made = plan
        call.describe_later(lambda: ("1 x 1 convolution", made.explain().packed_weight_bytes, ()))
    call.natively()
    plan.run(reshaped(call, x, (1, 1, rows, inputs)), out.reshape(1, 1, rows, outputs))
    return out


class Products:
    """Rows times the transpose of a matrix a direction, plus a bias: packed once where the matrix stays the same."""

    def __init__(self, call: Call, name: str, weight: Array, bias: Array | None, constant: bool) -> None:
        self._call, self._name, self._weight, self._bias = call, name, weight, bias
        self._constant = constant and 0 not in weight.shape

    def into(self, direction: int, rows: Array, out: Array) -> None:
        """`rows` (count, features) times the weight of a direction into `out`, contiguous."""
        self.bound(direction, rows, out)()

    def bound(self, direction: int, rows: Array, out: Array, added: Array | None = None) -> Callable[[], Any]:
        """The same as a function to be called again and again, after `rows` has been written to; `added` (of a constant
        matrix) is added to the product."""
        weight = self._weight[direction].T
        bias = None if self._bias is None else self._bias[direction]
        count = len(rows)
        if not self._constant or not count or rows.dtype != weight.dtype:
            return partial(_plain, rows, weight, bias, out)
        key = (self._name, direction, count)
        plan = self._call.state.get(key)
        if plan is None:
            few = count * weight.size < FEW_PRODUCTS
            plan = self._call.state[key] = prepared(
                Use.NETWORK, (1, 1, count, weight.shape[0]), weight.reshape(1, 1, *weight.shape), bias,
                data_format="NHWC", num_threads=1 if few else self._call.threads, **self._call.halves,
            )  # fmt: skip
            packed = self._call.told.packed_bytes + plan.explain().packed_weight_bytes
            self._call.describe("gathered products" if self._name == "taps" else "packed products", packed)
        more = None if added is None else added.reshape(1, 1, *added.shape)
        return partial(plan.run, rows.reshape(1, 1, *rows.shape), out.reshape(1, 1, *out.shape), residual=more)


def _plain(rows: Array, weight: Array, bias: Array | None, out: Array) -> None:
    product(rows, weight, out)
    if bias is not None:
        np.add(out, bias, out=out)


@operator("Einsum")
def einsum(call: Call, *arrays: Array) -> Array:
    """As `numpy.einsum`."""
    text = "".join(str(call.get("equation", "")).split())
    given, _, result = text.partition("->")
    sizes: dict[str, int] = {}
    for term, array in zip(given.split(","), arrays, strict=False):
        if "..." not in term and len(term) == array.ndim:
            sizes.update(zip(term, array.shape, strict=True))
    call.check([sizes.get(letter, 1) for letter in result.replace(".", "")], arrays[0].dtype)
    if (found := _einsum_product(call, given.split(","), result, arrays, sizes)) is not None:
        return found
    kept = result if "->" in text else [letter for letter in sizes if given.count(letter) == 1]
    terms = prod(size for letter, size in sizes.items() if letter not in kept)
    if arrays[0].dtype == np.float32 and (terms >= LONG_SUM or "..." in given):  # NumPy's sums are running ones
        return np.asarray(np.einsum(text, *arrays, dtype=np.float64, casting="unsafe")).astype(np.float32)
    return np.asarray(np.einsum(text, *arrays))


@operator("Det", since=11)
def det(call: Call, x: Array) -> Any:
    """The determinants of square matrices."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise call.error(f"an input of shape {x.shape} holds no square matrices.")
    return np.asarray(np.linalg.det(x)).astype(x.dtype, copy=False)


def _einsum_product(
    call: Call, terms: list[str], result: str, arrays: tuple[Array, ...], sizes: dict[str, int]
) -> Array | None:
    """Two arrays multiplied and summed over what the result lacks, as a native product; None where it is none."""
    if len(arrays) != 2 or len(terms) != 2 or arrays[0].dtype not in TYPES or arrays[0].dtype != arrays[1].dtype:
        return None
    a, b = terms
    fits = all(
        len(set(term)) == len(term) == array.ndim and array.shape == tuple(sizes[letter] for letter in term)
        for term, array in zip(terms, arrays, strict=True)
    )
    if not fits or len(set(result)) != len(result) or set(result) != set(a) ^ set(b) | (set(a) & set(b) & set(result)):
        return None
    batch = [letter for letter in a if letter in b and letter in result]
    summed = [letter for letter in a if letter in b and letter not in result]
    left, right = ([letter for letter in term if letter not in other] for term, other in ((a, b), (b, a)))

    def seen(term: str, array: Array, *groups: list[str]) -> Array:
        """(batch, rows, columns) of an array whose axes are these letters."""
        order = [term.index(letter) for letter in (*batch, *groups[0], *groups[1])]
        shape = [prod(sizes[letter] for letter in group) for group in (batch, *groups)]
        return reshaped(call, array.transpose(order), shape)

    wanted = [*batch, *left, *right]
    out = call.empty([sizes[letter] for letter in wanted], arrays[0].dtype)
    product_of = seen(a, arrays[0], left, summed), seen(b, arrays[1], summed, right)
    matrices = out.reshape([prod(sizes[letter] for letter in group) for group in (batch, left, right)])
    if multiplied(call, matrices, *product_of):
        call.natively()
    return out.transpose([wanted.index(letter) for letter in result])
