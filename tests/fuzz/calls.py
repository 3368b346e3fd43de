"""Bytes as a call of a public function, judged by the reference.

`Draw` reads the bytes; when they end it gives zeros, which stand for the plainest choice, so that every input is a call
and a small change of the bytes is a small change of the call. Half of the space is sound calls of every function, in
any layout and type; the rest has numbers or whole arguments replaced by hostile ones.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from reliability.rows.bad_input import KINDS
from reliability.rows.layouts import LAYOUTS

import fastconv
from fastconv import ConvError, ConvTypeError, reference
from fastconv.testing.problems import ACTIVATIONS, INTEGER_PAIRS, PADDING_MODES, fill
from fuzz.files import Fault, limit_memory

Array = Any
FUNCTIONS = (
    "conv2d", "conv_transpose2d", "conv2d_backward", "plan_conv2d", "conv1d", "conv_transpose1d", "tiled_conv2d",
    "grad.conv2d_input", "grad.conv2d_weight", "grad.conv_transpose2d_input", "grad.conv_transpose2d_weight",
    "grad.tiled_conv2d_input", "grad.tiled_conv2d_weight", "max_pool2d", "avg_pool2d", "grad.max_pool2d_input",
    "grad.avg_pool2d_input", "explain_conv2d",
)  # fmt: skip
WITH_OUT = ("conv2d", "conv_transpose2d", "conv1d", "conv_transpose1d", "tiled_conv2d", "max_pool2d", "avg_pool2d")
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 0)
HUGE = (-1, -2, 2**15, 2**31 - 1, 2**31, 2**32 + 1, 2**58, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 2**40)
ROUNDING = {"f2": 4e-3, "f4": 2e-5, "f8": 1e-11}  # of results that are not exact, beside the sum of magnitudes
WINOGRAD_ROUNDING = 1e-3  # far above the bound, which `accuracy` holds it to, and far below a wrong term of these sums
MOST_MACS = 100_000
SPECIAL = (np.nan, np.inf, -np.inf, -0.0)
LAYOUT_NAMES = ("", *LAYOUTS)
OUT_LAYOUTS = (
    "", "Fortran order", "channels-last memory", "every second of every axis", "negative everywhere", "three bytes off",
    "odd bytes between rows", "a field of a packed record", "a crop of a larger array", "negative by two and three",
)  # fmt: skip


class Draw:
    """The choices that the bytes make."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def below(self, count: int) -> int:
        return self.byte() % count

    def pick(self, choices: Any) -> Any:
        return choices[self.below(len(choices))]

    def sometimes(self, share: int) -> bool:
        """One byte in `share`, never the zero of the end."""
        return self.byte() % share == share - 1

    def pair(self, choices: Any) -> Any:
        """One choice for both axes, or one for each."""
        first = self.pick(choices)
        return (first, self.pick(choices)) if self.sometimes(4) else first


@dataclass
class Call:
    """A call, its twin's, and how their answers may differ."""

    function: str
    arguments: dict[str, Any]
    exact: bool  # integer values, all sums of which are exact
    hostile: bool  # an argument that the reference need not understand
    large: bool  # integers whose sums may not fit
    winograd: bool


def pads(draw: Draw) -> Any:
    kind = draw.below(8)
    if kind < 3:
        return draw.pick((0, 1, 2, 3, 5))
    if kind == 3:
        return (draw.below(5), draw.below(5))
    if kind == 4:
        return tuple((draw.below(7) - 2, draw.below(7) - 2) for _ in (0, 1))
    return draw.pick(("same", "valid", "full", "same_lower", "SAME")) if kind < 7 else 0


def both(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def filled(draw: Draw, shape: tuple[int, ...], dtype: str, large: bool, special: bool = True) -> tuple[Array, Array]:
    """An array in some layout, and its contiguous copy."""
    rng = np.random.default_rng([draw.byte(), *shape])
    array = fill(rng, shape, dtype, "integers", large)
    if draw.sometimes(16) and special and array.size and array.dtype.kind == "f":
        array.flat[draw.byte() * 37 % array.size] = draw.pick(SPECIAL)
    name = draw.pick(LAYOUT_NAMES) if draw.sometimes(3) else ""
    if not name:
        return array, array
    changed = LAYOUTS[name](array)
    copy = np.array(np.asarray(changed), dtype=array.dtype, order="C", subok=False)
    return changed, copy


def conv(draw: Draw, function: str) -> tuple[Call, dict[str, Any]]:
    """A convolution, one of its gradients, or its plan; and the twin's arguments."""
    name = function.removeprefix("grad.")
    transposed, line, tiled = "transpose" in name, name.endswith("1d"), "tiled" in name
    last = draw.sometimes(2)
    kernel = both(draw.pair((1, 2, 3, 4, 5, 3, 7, 0)))
    stride, dilation = draw.pair((1, 2, 3, 4)), draw.pair((1, 2, 3))
    padding = pads(draw)
    groups = 1 if tiled or (last and transposed) else draw.pick((1, 1, 2, 3, 5, 8, 16))
    inputs, outputs = draw.pick(SIZES) * groups, draw.pick(SIZES) * groups
    size = tuple(draw.below(24) for _ in (0, 1))
    batch = draw.pick((1, 2, 3, 0))
    if line:
        kernel, size = (1, kernel[1]), (1, size[1])
        stride, dilation = both(stride)[1], both(dilation)[1]
        padding = padding[1] if isinstance(padding, tuple) else padding
        padding = (padding,) if isinstance(padding, tuple) else padding
    work = max(batch, 1) * (size[0] + 4) * (size[1] + 4) * max(1, kernel[0] * kernel[1]) * inputs * outputs // groups
    if work > MOST_MACS:
        batch, inputs, outputs = min(batch, 1), min(inputs, 5 * groups), min(outputs, 5 * groups)
    floats = draw.pick(("float32", "float64", "float32", "float16", ""))
    kinds = (floats, floats) if floats else draw.pick(INTEGER_PAIRS)
    if name == "plan_conv2d":  # a plan has one type
        kinds = (kinds[0], kinds[0])
    large = not floats and draw.sometimes(4)
    mode = draw.pick(PADDING_MODES) if not transposed and not tiled and draw.sometimes(3) else "zeros"
    algorithm = draw.pick(("direct", "direct", "auto", "winograd"))
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    options["data_format"] = (("NLC", "NCL") if line else ("NHWC", "NCHW"))[not last]
    if not tiled:
        options["groups"] = groups
    if not transposed and not tiled:
        options["padding_mode"] = mode
    if transposed and draw.sometimes(2):
        options["output_padding"] = draw.below(3) if line else draw.pair((0, 1, 2))
    first, second = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    weight_shape: tuple[int, ...] = (*kernel, second, first) if last else (first, second, *kernel)
    input_shape: tuple[int, ...] = (batch, *size, inputs) if last else (batch, inputs, *size)
    if tiled:
        weight_shape = (draw.below(3) + 1, draw.below(3) + 1, *weight_shape)
    if line:
        weight_shape = weight_shape[1:] if last else (*weight_shape[:2], weight_shape[3])
        input_shape = (batch, size[1], inputs) if last else (batch, inputs, size[1])
    if draw.sometimes(8):
        input_shape = input_shape[1:]
    ours: dict[str, Any] = {**options, "algorithm": algorithm}
    theirs = dict(options)
    exact = True
    special = not name.startswith("tiled_conv2d_")  # whose twin multiplies a kernel's pixels of other tiles by zero

    def give(argument: str, shape: tuple[int, ...], kind: str) -> None:
        ours[argument], theirs[argument] = filled(draw, shape, kind, large, special)

    forward = {"conv2d": "conv2d", "conv1d": "conv1d", "conv_transpose2d": "conv_transpose2d",
               "conv_transpose1d": "conv_transpose1d", "tiled_conv2d": "tiled_conv2d", "plan_conv2d": "conv2d",
               "explain_conv2d": "conv2d"}.get(name)  # fmt: skip
    if forward:
        give("input", input_shape, kinds[0])
        give("weight", weight_shape, kinds[1])
        if draw.sometimes(2):
            give("bias", (outputs,), kinds[1])
        if name in ("conv2d", "conv1d", "plan_conv2d") and draw.sometimes(3):
            chosen = draw.pick(ACTIVATIONS if floats else ("relu", "relu6"))
            ours["activation"] = theirs["activation"] = chosen
            exact = chosen in ("relu", "relu6")
        if name in ("conv2d", "conv1d") and draw.sometimes(4) and (shape := result_shape(forward, theirs)):
            give("residual", shape, kinds[0])
    else:
        twin = "tiled_conv2d" if tiled else "conv_transpose2d" if transposed else "conv2d"
        ones = np.broadcast_to(np.int8(0), input_shape), np.broadcast_to(np.int8(0), weight_shape)
        shape = result_shape(twin, {**options, "input": ones[0], "weight": ones[1]}) or input_shape
        if name == "conv2d_backward":
            ours["output_mask"] = theirs["output_mask"] = tuple(not draw.sometimes(3) for _ in range(3))
        if name.endswith("_input"):
            ours["input_size"] = theirs["input_size"] = input_shape
        else:
            give("input", input_shape, kinds[0])
        if name.endswith("_weight"):
            ours["weight_size"] = theirs["weight_size"] = weight_shape
        else:
            give("weight", weight_shape, kinds[0])
        give("grad_output", shape, kinds[0])
    winograd = algorithm in {"float32": ("winograd", "auto"), "float16": ("winograd",)}.get(floats, ())
    return Call(function, ours, exact, False, large, winograd), theirs


def pool(draw: Draw, function: str) -> tuple[Call, dict[str, Any]]:
    name = function.removeprefix("grad.")
    greatest, gradient = name.startswith("max"), name.endswith("_input")
    last = draw.sometimes(2)
    options: dict[str, Any] = {
        "kernel_size": draw.pair((1, 2, 3, 4, 5, 7)), "stride": draw.pick((None, 1, 2, 3, (1, 2))),
        "padding": pads(draw), "ceil_mode": draw.sometimes(3), "data_format": "NHWC" if last else "NCHW",
    }  # fmt: skip
    if greatest:
        options["dilation"] = draw.pair((1, 2, 3))
    else:
        options["count_include_pad"] = not draw.sometimes(3)
        options["divisor_override"] = draw.pick((None, None, 1, 3, -2))
    size, channels, batch = tuple(draw.below(24) for _ in (0, 1)), draw.pick(SIZES), draw.pick((1, 2, 3, 0))
    shape = (batch, *size, channels) if last else (batch, channels, *size)
    shape = shape[1:] if draw.sometimes(8) else shape
    kinds = ("float32", "float64", "float16", *(("int8", "uint16", "int64") if greatest and not gradient else ()))
    dtype = draw.pick(kinds)
    ours, theirs = dict(options), dict(options)

    def give(argument: str, of: tuple[int, ...]) -> None:
        ours[argument], theirs[argument] = filled(draw, of, dtype, False)

    if gradient and not greatest:
        ours["input_size"] = theirs["input_size"] = shape
    else:
        give("input", shape)
    if gradient:
        plain = {"input": np.zeros(shape, np.float32), **options}
        give("grad_output", result_shape(name.removesuffix("_input"), plain) or shape)
    elif greatest and draw.sometimes(2):
        ours["return_indices"] = theirs["return_indices"] = True
    return Call(function, ours, greatest, False, False, False), theirs


def result_shape(name: str, arguments: dict[str, Any]) -> tuple[int, ...] | None:
    """The shape of a result, by the reference; None where there is none."""
    try:
        return tuple(getattr(reference, name)(**arguments).shape)
    except (ConvError, ConvTypeError):
        return None


def spoilt(draw: Draw, call: Call) -> bool:
    """Put something hostile in the place of an argument; whether it is a number that the reference may not survive."""
    names = [name for name in parameters(call.function) if name != "out"]
    name = draw.pick(names)
    if draw.sometimes(2):
        values = KINDS.get(name)
        if not values:
            return False
        call.arguments[name] = draw.pick(values)
    else:
        numbers = [draw.pick(HUGE) if draw.sometimes(2) else draw.below(4) for _ in range(draw.below(5) + 1)]
        call.arguments[name] = numbers[0] if len(numbers) == 1 else tuple(numbers)
        if name == "num_threads" and numbers[0] > 64:  # threads are started
            call.arguments[name] = 2**70
    return True


@cache
def parameters(function: str) -> tuple[str, ...]:
    return tuple(inspect.signature(found(fastconv, function)).parameters)


def found(owner: Any, function: str) -> Callable[..., Any]:
    for part in function.split("."):
        owner = getattr(owner, part)
    called: Callable[..., Any] = owner
    return called


def call_of(data: bytes) -> tuple[Call, dict[str, Any], Any]:
    """The call that the bytes stand for, what its twin gets, and an array for the result (or None)."""
    draw = Draw(data)
    function = draw.pick(FUNCTIONS)
    call, theirs = (pool if "pool" in function else conv)(draw, function)
    threads = draw.pick((None, 1, 2, 3, None, None))
    if threads:
        call.arguments["num_threads"] = threads
    out_layout = draw.pick(OUT_LAYOUTS) if draw.sometimes(3) else None
    if draw.sometimes(3):
        call.hostile = spoilt(draw, call)
    return call, theirs, out_layout


def planned(arguments: dict[str, Any]) -> Array:
    """The plan of a convolution, run twice."""
    given = dict(arguments)
    x = given.pop("input")
    plan = fastconv.plan_conv2d(given.pop("input_shape", np.shape(x)), **given)
    plan.explain()
    y = plan.run(x)
    again = plan.run(x, out=np.full_like(y, 7))
    if not np.array_equal(y, again, equal_nan=True):
        raise Fault("the second run of a plan differs from the first")
    return y


def explained(arguments: dict[str, Any]) -> None:
    given = {k: v for k, v in arguments.items() if k not in ("input", "weight", "bias", "activation")}
    x, w = np.asarray(arguments["input"]), np.asarray(arguments["weight"])
    given.setdefault("input_shape", x.shape)
    given.setdefault("weight_shape", w.shape)
    given.setdefault("dtype", x.dtype)
    str(fastconv.explain_conv2d(**given))


def answers(call: Call, out: Array) -> Any:
    if call.function == "plan_conv2d":
        return planned(call.arguments)
    if call.function == "explain_conv2d":
        return explained(call.arguments)
    given = dict(call.arguments)
    if out is not None:
        given["out"] = out
    return found(fastconv, call.function)(**given)


def run(data: bytes) -> str:
    """Make the call and judge its answer: 'computed' or 'refused'. Raises `Fault`."""
    call, theirs, out_layout = call_of(data)
    expected: Any = None
    refusal: Exception | None = None
    if not call.hostile and call.function != "explain_conv2d":
        name = {"plan_conv2d": "conv2d"}.get(call.function, call.function.removeprefix("grad."))
        try:
            expected = getattr(reference, name)(**theirs)
        except (ConvError, ConvTypeError) as error:
            refusal = error
    out = None
    if out_layout is not None and call.function in WITH_OUT and isinstance(expected, np.ndarray):
        out = np.full_like(expected, 77)
        out = LAYOUTS[out_layout](out) if out_layout else out
    before = [np.array(theirs[name], copy=True) for name in theirs if isinstance(theirs[name], np.ndarray)]
    try:
        with np.errstate(all="ignore"):
            got = answers(call, out)
    except (ConvError, ConvTypeError) as error:
        judge_refusal(call, str(error), expected is not None)
        if out is not None and not (out == 77).all():
            raise Fault("out was written on an error") from error
        return "refused"
    except MemoryError as error:
        if not call.hostile:
            raise Fault("out of memory") from error
        return "refused"
    if call.hostile or call.function == "explain_conv2d":
        return "computed"
    if refusal is not None:
        raise Fault(f"accepted, though the reference says: {refusal}")
    after = [theirs[name] for name in theirs if isinstance(theirs[name], np.ndarray)]
    if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(before, after, strict=True)):
        raise Fault("an input was written")
    if out is not None and got is not out:
        raise Fault("out was not returned")
    pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (got, expected)), strict=True)
    for number, (one, other) in enumerate(pairs):
        if fault := difference(call, theirs, one, other, number):
            raise Fault(fault)
    return "computed"


def judge_refusal(call: Call, message: str, sound: bool) -> None:
    names = (*parameters(call.function), "input", "output", "int32", "int64", "kernel")
    if len(message) < 35 or not any(re.search(rf"\b{name}\b", message) for name in names):
        raise Fault(f"a refusal that names no argument: {message}")
    forced = call.arguments.get("algorithm") == "winograd" and "winograd" in message
    if sound and not (forced or (call.large and "int" in message)):
        raise Fault(f"refused, though the reference computes it: {message}")


def difference(call: Call, theirs: dict[str, Any], got: Array, expected: Array, number: int) -> str:
    """What is wrong with a result; empty if nothing is."""
    if got is None or expected is None:
        return "" if got is expected else f"result {number}: {got is None and 'none'}"
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return f"result {number}: {got.dtype}{got.shape}, not {expected.dtype}{expected.shape}"
    if np.array_equal(got, expected, equal_nan=True):
        return ""
    if call.exact and not call.winograd:
        wrong = np.argwhere(~((got == expected) | ((got != got) & (expected != expected))))[0]
        at = tuple(int(i) for i in wrong)
        return f"result {number}: {got[at]} at {at}, not {expected[at]}"
    u = WINOGRAD_ROUNDING if call.winograd else ROUNDING[got.dtype.str[1:]]
    allowed = u * max(1.0, magnitude(call, theirs))
    one, other = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        wrong = ~((one == other) | ((one != one) & (other != other)) | (np.abs(one - other) <= allowed))
    if not wrong.any():
        return ""
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"result {number}: {got[at]} at {at}, not {expected[at]} +- {allowed}"


def magnitude(call: Call, theirs: dict[str, Any]) -> float:
    """The largest sum of magnitudes in a result, with what is not finite left out."""
    name = {"plan_conv2d": "conv2d"}.get(call.function, call.function.removeprefix("grad."))
    finite = {
        k: np.abs(np.nan_to_num(v.astype(np.float64), nan=0, posinf=0, neginf=0)) if isinstance(v, np.ndarray) else v
        for k, v in theirs.items()
        if k != "activation"
    }
    sums = getattr(reference, name)(**finite)
    return max(
        float(np.max(np.abs(s), initial=0)) for s in (sums if isinstance(sums, tuple) else (sums,)) if s is not None
    )


def target() -> Callable[[bytes], None]:
    """What atheris calls."""
    limit_memory()
    warnings.simplefilter("ignore")

    def one(data: bytes) -> None:
        run(data)

    return one
