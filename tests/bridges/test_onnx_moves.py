"""What operators between convolutions do natively is done again by the recorded works alone, on new values; and no
result depends on threads or, beyond rounding, on how its input lies in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from fastconv import _native
from fastconv.errors import ConvError
from fastconv.graph.errors import OnnxError
from fastconv.graph.graph import Node
from fastconv.graph.memory import Pool
from fastconv.graph.operators import Call, find

Array = np.ndarray[Any, np.dtype[Any]]
SIZES = {"x": (2, 12, 7, 6), "v": (2, 12, 7, 6, 5), "m": (2, 3, 5, 9), "s": (2, 12, 9)}
AXES = np.array([2, 3])


def numbers(*values: float) -> Array:
    return np.array(values, np.float32 if any(isinstance(value, float) for value in values) else np.int64)


# operator, input, the other inputs, attributes
CASES: list[tuple[str, str, list[Any], dict[str, Any]]] = [
    ("Transposed", "x", [numbers(0, -1)], {}),
    ("Concat", "x", ["x", "x"], {"axis": 1}), ("Concat", "x", ["x"], {"axis": 2}),
    ("Reshape", "x", [numbers(2, 6, 2, -1)], {}), ("Flatten", "x", [], {}), ("Tile", "x", [numbers(1, 2, 3, 1)], {}),
    ("DepthToSpace", "x", [], {"blocksize": 2}), ("DepthToSpace", "x", [], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", "s4", [], {"blocksize": 2}),
    ("Gather", "x", [numbers(3, -1, 3)], {"axis": 1}), ("Gather", "x", [np.array([[0, 5], [1, 2]])], {"axis": 3}),
    ("Pad", "x", [numbers(0, 0, 2, -1, 1, 0, 3, 4), np.float32(3.5)], {}),
    ("Pad", "x", [numbers(0, 0, 9, 3, 0, 0, 8, -2)], {"mode": "reflect"}),
    ("Pad", "x", [numbers(0, 2, 2, 1, 1, 0, 3, 4)], {"mode": "edge"}),
    ("Pad", "x", [numbers(0, 0, 2, 13, 0, 0, 20, 4)], {"mode": "wrap"}),
    ("CenterCropPad", "x", [numbers(5, 11)], {"axes": [2, 3]}),
    ("Resize", "x", [None, numbers(1.0, 1.0, 2.0, 2.0)], {"mode": "nearest"}),
    ("Resize", "x", [None, numbers(1.0, 1.0, 0.6, 1.7)], {"mode": "nearest"}),
    ("Resize", "x", [None, numbers(1.0, 1.0, 2.0, 2.0)], {"mode": "linear"}),
    ("Resize", "x", [None, None, numbers(2, 12, 3, 11)],
     {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ("Resize", "x", [None, numbers(1.0, 1.0, 1.0, 3.0)], {"mode": "linear"}),
    ("Resize", "x", [None, numbers(1.0, 1.0, 0.5, 2.5)], {"mode": "cubic"}),
    ("Resize", "x", [None, numbers(1.0, 1.0, 0.4, 0.4)], {"mode": "cubic", "antialias": 1}),
    ("Resize", "x", [None, numbers(1.0, 0.5, 1.0, 2.0)], {"mode": "linear"}),
    ("Resize", "x", [numbers(0.0, 0.0, -0.5, 0.2, 1.0, 1.0, 1.2, 0.7), None, numbers(2, 12, 9, 8)],
     {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 9.0}),
    ("Resize", "v", [None, numbers(1.0, 1.0, 2.0, 1.5, 0.7)], {"mode": "linear"}),
    ("Resize", "v", [None, numbers(1.0, 1.0, 2.0, 1.0, 2.0)], {"mode": "nearest"}),
    ("Resize", "s", [None, numbers(1.0, 1.0, 2.3)], {"mode": "cubic"}),
    ("GlobalAveragePool", "x", [], {}), ("GlobalMaxPool", "v", [], {}), ("GlobalLpPool", "x", [], {"p": 2}),
    ("ReduceMean", "x", [AXES], {"keepdims": 0}), ("ReduceMean", "x", [numbers(1)], {}),
    ("ReduceSum", "x", [numbers(0, 2)], {}), ("ReduceMax", "x", [numbers(-1)], {}),
    ("ReduceMin", "v", [numbers(1, 3)], {}),
    ("ReduceL1", "x", [numbers(1)], {}), ("ReduceL2", "x", [AXES], {}), ("ReduceSumSquare", "x", [], {}),
    ("ArgMax", "x", [], {"axis": 1}), ("ArgMin", "x", [], {"axis": 3, "keepdims": 0, "select_last_index": 1}),
    ("MaxPool", "x", [], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 1, 0]}),
    ("AveragePool", "v", [], {"kernel_shape": [2, 2, 2], "ceil_mode": 1}),
    ("MatMul", "m", ["m9x4"], {}), ("MatMul", "m", ["9"], {}), ("MatMul", "m", ["9x4"], {}),
    ("Einsum", "x", ["x"], {"equation": "bhid,bhjd->bhij"}), ("Einsum", "x", ["v"], {"equation": "bhij,bhijk->kbh"}),
    ("Einsum", "9x4", ["5x9"], {"equation": "ij,ki->jk"}), ("Einsum", "9", ["4"], {"equation": "i,j->ji"}),
    ("Cast", "x", [], {"to": 6}), ("Cast", "x", [], {"to": 7}),
    ("Gemm", "5x9", ["9x4", "4"], {"alpha": 0.5, "beta": 2.0}), ("Gemm", "5x9", ["4x9"], {"transB": 1}),
]  # fmt: skip
SHAPES = {"m9x4": (3, 9, 4), "9": (9,), "9x4": (9, 4), "5x9": (5, 9), "4": (4,), "4x9": (4, 9), "s4": (2, 3, 6, 8)}
LAYOUTS = ("first", "last", "cut")


def drawn(name: str, layout: str, dtype: Any, seed: int) -> Array:
    """Values by name: side by side, channels last, or cut from a larger array."""
    shape = SIZES.get(name) or SHAPES[name]
    values = np.random.default_rng([seed, len(name)]).standard_normal(shape).astype(dtype)
    if layout == "last" and len(shape) > 2:
        out = np.empty((shape[0], *shape[2:], shape[1]), dtype)
        values, wanted = np.moveaxis(out, -1, 1), values
        values[...] = wanted
    elif layout == "cut":
        whole = np.zeros([size + 2 for size in shape], dtype)
        wanted, values = values, whole[tuple(slice(1, -1) for _ in shape)]
        values[...] = wanted
    return values


def run(case: tuple[str, str, list[Any], dict[str, Any]], layout: str, dtype: Any = np.float32, seed: int = 0,
        threads: int = 1) -> tuple[Array, list[Any], Call]:  # fmt: skip
    kind, first, others, attributes = case
    inputs = [first, *others]
    arrays = [drawn(one, layout, dtype, seed) if isinstance(one, str) else one for one in inputs]
    names = ["" if one is None else f"i{at}" for at, one in enumerate(inputs)]
    if kind == "Transposed":  # a reshaped transpose, which is a copy
        arrays[0], kind = arrays[0].transpose(1, 0, *range(2, arrays[0].ndim)), "Reshape"
        arrays[1] = np.array([-1])
    constants = {name for name, one in zip(names, inputs, strict=True) if not isinstance(one, str)}
    node = Node(kind, names, ["y"], attributes, 18)
    found = find("", kind, 18)
    assert found is not None
    call = Call(node, Pool(), threads, constants)
    call.begin(arrays)
    result = found.function(call, *arrays)
    return result[0] if isinstance(result, tuple) else result, arrays, call


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_works_alone_do_it_again(case: Any) -> None:
    for layout in LAYOUTS:
        for dtype in (np.float32, *([] if case[0] == "Cast" else [np.float64])):
            works: list[Any] = []
            _native.record(works)
            try:
                result, arrays, call = run(case, layout, dtype)
            finally:
                _native.record(None)
            assert call.native or np.shares_memory(result, arrays[0]), layout  # or a view
            fresh, others, _ = run(case, layout, dtype, seed=1)
            assert not np.array_equal(result, fresh)
            for array, other in zip(arrays, others, strict=True):
                if array is not None and array.flags.writeable:
                    array[...] = other
            for work in works:
                work.run()
            np.testing.assert_array_equal(result, fresh, err_msg=layout)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_neither_memory_nor_threads_change_a_result(case: Any) -> None:
    right = run(case, "first")[0]
    for layout in LAYOUTS:
        found = run(case, layout)[0]
        assert found.shape == right.shape and found.dtype == right.dtype
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5, err_msg=layout)
        np.testing.assert_array_equal(run(case, layout, threads=3)[0], found)
    exact = run(case, "first", np.float64)[0]
    if right.dtype.kind == "f":
        assert exact.dtype == np.float64


def test_what_is_no_constant_is_not_recorded_as_one() -> None:
    """The works keep tables of places and pads, which another run may have others of."""
    for kind, others in (("Gather", [numbers(1, 0)]), ("Pad", [numbers(0, 0, 1, 1, 0, 0, 1, 1)])):
        node = Node(kind, ["x", "i"], ["y"], {}, 18)
        found = find("", kind, 18)
        assert found is not None
        call = Call(node, Pool(), 1, ())
        x = drawn("x", "first", np.float32, 0)
        call.begin([x, *others])
        found.function(call, x, *others)
        assert not call.native


def test_the_same_bits_for_integers_and_16_bit_floats() -> None:
    for dtype in (np.int8, np.int64, np.float16, np.bool_, np.uint16):
        for case in CASES[:15]:
            values = run(case, "first", np.float64)[1][0]
            x = (values > 0).astype(dtype) if dtype is np.bool_ else (100 * values).astype(dtype)
            kind, _, others, attributes = case
            if kind in ("Concat", "Transposed") or (kind == "Pad" and len(others) > 1):
                continue
            node = Node(kind, [f"i{at}" for at in range(1 + len(others))], ["y"], attributes, 18)
            found = find("", kind, 18)
            assert found is not None
            results = []
            for array in (x, np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)):
                call = Call(node, Pool(), 1, {f"i{at}" for at in range(1, 1 + len(others))})
                call.begin([array, *others])
                results.append(found.function(call, array, *others))
            np.testing.assert_array_equal(results[0], results[1])
            assert results[0].dtype == dtype


@pytest.mark.parametrize("kind, others", [
    ("Pad", [numbers(0, 0, 1 << 20, 0, 0, 0, 1 << 20, 0)]), ("Tile", [numbers(1, 1 << 20, 1 << 20, 1)]),
    ("Resize", [None, numbers(1.0, 1.0, 2.0e5, 2.0e5)]), ("Gather", [np.zeros(1 << 20, np.int64)]),
])  # fmt: skip
def test_a_result_that_is_too_large_is_refused_before_it_is_allocated(kind: str, others: list[Any]) -> None:
    node = Node(kind, ["x", *("" if one is None else "i" for one in others)], ["y"], {}, 18)
    found = find("", kind, 18)
    assert found is not None
    x = drawn("x", "first", np.float32, 0)
    call = Call(node, Pool(1 << 20), 1, {"i"})
    call.begin([x, *others])
    with pytest.raises((OnnxError, ConvError), match="at most 1,048,576 are allowed"):
        found.function(call, x, *others)


def test_borders_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    for mode in ("reflect", "edge", "wrap", "constant"):
        for _ in range(30):
            shape = [int(size) for size in rng.integers(1, 6, 3)]
            pads = rng.integers(0, 12, (3, 2))
            x = rng.standard_normal(shape).astype(np.float32)
            node = Node("Pad", ["x", "pads"], ["y"], {"mode": mode}, 18)
            found = find("", "Pad", 18)
            assert found is not None
            call = Call(node, Pool(), 1, {"pads"})
            call.begin([x, pads.T.ravel()])
            np.testing.assert_array_equal(found.function(call, x, pads.T.ravel()), np.pad(x, pads, mode))  # type: ignore[call-overload]


@pytest.mark.parametrize("kind", ["uint8", "int8", "int32", "int64", "bool", "float64", "float32"])
def test_conversions_are_those_of_numpy(kind: str) -> None:
    """Natively where the kernels have them, from any memory: every pair with the same types on both sides."""
    numbers_of = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float64": 11}
    x = (50 * drawn("x", "last", np.float64, 0)).astype(kind)
    for name, number in numbers_of.items():
        node = Node("Cast", ["x"], ["y"], {"to": number}, 18)
        found = find("", "Cast", 18)
        assert found is not None
        for array in (x, x[:, ::2], x.ravel()[:1], x[:0]):
            call = Call(node, Pool(), 2)
            call.begin([array])
            y = found.function(call, array)
            with np.errstate(invalid="ignore"):
                np.testing.assert_array_equal(y, array.astype(name))
            assert y.dtype == name and call.native == ((kind, name) in _native.CASTS)


@pytest.mark.parametrize("equation, shapes", [
    ("ij,jk->ik", ((3, 4), (4, 5))), ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))), ("ij,ij->ij", ((3, 4), (3, 4))),
    ("ij,ij->", ((3, 4), (3, 4))), ("abc,cd->abd", ((2, 3, 4), (4, 5))), ("ij,k->ikj", ((3, 4), (5,))),
    ("bqhd,bkhd->bhqk", ((2, 7, 3, 4), (2, 5, 3, 4))), ("ii,ij->ij", ((3, 3), (3, 4))), ("ij,jk->k", ((3, 4), (4, 5))),
    ("ij,jk", ((3, 4), (4, 5))), ("...i,ij->...j", ((2, 3, 4), (4, 5))), ("ij,kj->ik", ((0, 4), (5, 4))),
])  # fmt: skip
def test_einsum_is_that_of_numpy(equation: str, shapes: Any) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    node = Node("Einsum", ["a", "b"], ["y"], {"equation": equation}, 18)
    found = find("", "Einsum", 18)
    assert found is not None
    call = Call(node, Pool(), 1)
    call.begin(arrays)
    y = found.function(call, *arrays)
    np.testing.assert_allclose(y, np.einsum(equation, *arrays), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_channels_in_turns(dtype: Any, threads: int) -> None:
    """Pixels that follow each other, and of a larger array; nothing behind them is written."""
    a, b = (np.random.default_rng(at).integers(0, 99, (2, 40, 9, 37)).astype(dtype) for at in range(2))
    wide, room = np.zeros((2, 40, 9, 50), dtype), np.full((2, 40, 9, 80), 7, dtype)
    wide[..., 5:42] = a
    for first in (a, wide[..., 5:42]):
        for out in (np.empty((2, 40, 9, 74), dtype), room[..., :74]):
            _native.interleave(out, first, b, threads)
            np.testing.assert_array_equal(out[..., ::2], a)
            np.testing.assert_array_equal(out[..., 1::2], b)
    assert (room[..., 74:] == 7).all()
    with pytest.raises(ValueError, match="other shapes"):
        _native.interleave(room[..., :74], a[:1], b, 1)
    with pytest.raises(ValueError, match="lie"):
        _native.interleave(room[..., :74], a, np.repeat(b, 2, axis=-1)[..., ::2], 1)


def test_values_of_all_sizes_have_their_middle_at_one_place():
    """A half of each is one thread's own; see `memory`."""
    pool = Pool()
    middles = set()
    for values in (40_000, 10_016, 32_000, 20_000):
        array = pool.empty((values,), np.float32)
        pool.retain(array)
        middles.add(array.ctypes.data + array.nbytes // 2)
        pool.release(array)
        pool.settle()
    assert max(middles) - min(middles) < 64 and pool.peak == 0
    pool.finish()
    assert 160_000 <= pool.peak < 161_000
