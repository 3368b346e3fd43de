"""LSTM, GRU and RNN against the formulas of the standard, one sequence and one step at a time, in double precision."""

from __future__ import annotations

from math import exp, expm1, log1p, tanh
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")

from onnx_models import one_node  # noqa: E402

from fastconv.onnx import InferenceSession, OnnxError  # noqa: E402

make = onnx.helper.make_node
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DEFAULT = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
SCALAR = {
    "Relu": lambda x, a, b: max(x, 0.0), "Tanh": lambda x, a, b: tanh(x), "Sigmoid": lambda x, a, b: 1 / (1 + exp(-x)),
    "Affine": lambda x, a, b: a * x + b, "LeakyRelu": lambda x, a, b: x if x >= 0 else a * x,
    "ThresholdedRelu": lambda x, a, b: x if x > a else 0.0, "ScaledTanh": lambda x, a, b: a * tanh(b * x),
    "HardSigmoid": lambda x, a, b: min(max(a * x + b, 0.0), 1.0), "Elu": lambda x, a, b: x if x >= 0 else a * expm1(x),
    "Softsign": lambda x, a, b: x / (1 + abs(x)), "Softplus": lambda x, a, b: log1p(exp(x)),
}  # fmt: skip
WITH_ALPHA = {
    "Affine": 1.0,
    "LeakyRelu": 0.01,
    "ThresholdedRelu": 1.0,
    "ScaledTanh": 1.0,
    "HardSigmoid": 0.2,
    "Elu": 1.0,
}
WITH_BETA = {"Affine": 0.0, "ScaledTanh": 1.0, "HardSigmoid": 0.5}


def functions(kind: str, options: dict[str, Any], direction: int) -> list[Any]:
    """The activations of a direction, over arrays."""
    names = options.get("activations") or DEFAULT[kind] * 2
    alphas, betas = iter(options.get("activation_alpha", [])), iter(options.get("activation_beta", []))
    made = []
    for name in names:
        a = next(alphas, WITH_ALPHA[name]) if name in WITH_ALPHA else 0.0
        b = next(betas, WITH_BETA[name]) if name in WITH_BETA else 0.0
        made.append(np.vectorize(lambda x, f=SCALAR[name], a=a, b=b: f(x, a, b), otypes=[float]))
    count = len(DEFAULT[kind])
    return made[direction * count : (direction + 1) * count]


def cell(
    kind: str, f: list[Any], options: dict[str, Any], x: Any, h: Any, c: Any, w: Any, r: Any, b: Any, p: Any
) -> Any:
    """One step of one sequence: the formulas."""
    n, most = len(h), options.get("clip") or np.inf

    def clip(v: Any) -> Any:
        return np.clip(v, -most, most)

    wb, rb = np.split(b, 2)
    xs, hs = w @ x + wb, r @ h + rb
    if kind == "RNN":
        return f[0](clip(xs + hs)), c
    if kind == "GRU":
        z, reset = (f[0](clip((xs + hs)[at * n : (at + 1) * n])) for at in (0, 1))
        if options.get("linear_before_reset"):
            candidate = xs[2 * n :] + reset * hs[2 * n :]
        else:
            candidate = xs[2 * n :] + r[2 * n :] @ (reset * h) + rb[2 * n :]
        return (1 - z) * f[1](clip(candidate)) + z * h, c
    i, o, forget, g = np.split(xs + hs, 4)
    pi, po, pf = np.split(p, 3)
    i = f[0](clip(i + pi * c))
    forget = 1 - i if options.get("input_forget") else f[0](clip(forget + pf * c))
    c = forget * c + i * f[1](clip(g))
    return f[0](clip(o + po * c)) * f[2](c), c


def expected(kind: str, options: dict[str, Any], given: dict[str, Any]) -> list[Any]:
    """Y, Y_h and Y_c in the standard's first layout."""
    x, w, r = given["X"], given["W"], given["R"]
    steps, batch, _ = x.shape
    ways = {"reverse": [True], "bidirectional": [False, True]}.get(options.get("direction", ""), [False])
    hidden = r.shape[2]
    y = np.zeros((steps, len(ways), batch, hidden))
    last = np.zeros((2, len(ways), batch, hidden))
    for d, backwards in enumerate(ways):
        b = given["B"][d] if "B" in given else np.zeros(2 * len(w[d]))
        p = given["P"][d] if "P" in given else np.zeros(3 * hidden)
        for row in range(batch):
            h, c = (given[name][d, row] if name in given else np.zeros(hidden) for name in ("h", "c"))
            count = int(given["lengths"][row]) if "lengths" in given else steps
            for t in reversed(range(count)) if backwards else range(count):
                h, c = cell(kind, functions(kind, options, d), options, x[t, row], h, c, w[d], r[d], b, p)
                y[t, d, row] = h
            last[:, d, row] = h, c
    return [y, *last]


NAMES = ("X", "W", "R", "B", "lengths", "h", "c", "P")


def drawn(kind: str, seed: int) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Options, inputs by name, and whether the weights are constants."""
    rng = np.random.default_rng(seed)

    def chance() -> bool:
        return bool(rng.integers(2))

    options: dict[str, Any] = {
        "direction": str(rng.choice(["forward", "reverse", "bidirectional"])),
        "layout": seed % 2,
    }
    ways = 2 if options["direction"] == "bidirectional" else 1
    steps, batch, features, hidden = (int(rng.integers(low, 6)) for low in (0, 0, 1, 1))
    gates = GATES[kind] * hidden
    shapes: dict[str, tuple[int, ...]] = {
        "X": (steps, batch, features),
        "W": (ways, gates, features),
        "R": (ways, gates, hidden),
    }
    optional: dict[str, tuple[int, ...]] = {"B": (ways, 2 * gates), "h": (ways, batch, hidden)}
    if kind == "LSTM":
        optional |= {"c": (ways, batch, hidden), "P": (ways, 3 * hidden)}
        options["input_forget"] = int(chance())
    if kind == "GRU":
        options["linear_before_reset"] = int(chance())
    shapes |= {name: shape for name, shape in optional.items() if chance()}
    given = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if chance():
        given["lengths"] = rng.integers(0, steps + 1, batch).astype(np.int32)
    if chance():
        options["clip"] = 0.7
    if chance():
        options["activations"] = [str(name) for name in rng.choice(list(SCALAR), len(DEFAULT[kind]) * ways)]
        options["activation_alpha"] = [0.5, 0.3, 0.25][: int(rng.integers(4))]
        options["activation_beta"] = [0.25, 0.6][: int(rng.integers(3))]
        options = {name: value for name, value in options.items() if value != []}
    return options, given, chance()


@pytest.mark.parametrize("kind", GATES)
def test_every_option_beside_the_formulas(kind):
    """Directions, layouts, lengths, activations, clips; no steps, no batch; constant weights and fed ones."""
    for seed in range(60):
        options, given, constant = drawn(kind, seed)
        wanted = expected(kind, options, {name: array.astype(float) for name, array in given.items()})[
            : 3 if kind == "LSTM" else 2
        ]
        feeds = dict(given)
        if options["layout"]:
            feeds |= {name: given[name].swapaxes(0, 1) for name in ("X", "h", "c") if name in given}
            wanted = [wanted[0].transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in wanted[1:])]
        names = [name if name in feeds else "" for name in NAMES[: 8 if kind == "LSTM" else 6]]
        node = make(kind, names, [f"y{at}" for at in range(len(wanted))], hidden_size=given["R"].shape[2], **options)
        fixed = {name: feeds.pop(name) for name in ("W", "R", "B") if constant and name in feeds}
        session = InferenceSession(one_node(onnx, node, feeds, 14, fixed))
        for _ in range(2):
            for ours, theirs in zip(session.run(None, feeds), wanted, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5, err_msg=f"{kind} {seed} {options}")


def test_long_sequences_in_blocks_and_double_precision(monkeypatch):
    """Blocks of steps, the last of them shorter; float64 to its own rounding; the last state alone."""
    from fastconv.graph.operators import recurrent

    monkeypatch.setattr(recurrent, "BLOCK_BYTES", 4096)
    rng = np.random.default_rng(3)
    given = {"X": rng.standard_normal((37, 3, 5)), "W": rng.standard_normal((2, 28, 5)) / 2,
             "R": rng.standard_normal((2, 28, 7)) / 3}  # fmt: skip
    wanted = expected("LSTM", {"direction": "bidirectional"}, given)
    node = make("LSTM", ["X", "W", "R"], ["", "h", "c"], hidden_size=7, direction="bidirectional")
    fixed = {name: given[name] for name in "WR"}
    ours = InferenceSession(one_node(onnx, node, {"X": given["X"]}, 14, fixed)).run(None, {"X": given["X"]})
    for found, theirs in zip(ours, wanted[1:], strict=True):
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, theirs, rtol=1e-11, atol=1e-12)


def test_not_a_number_stays_in_its_sequence():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((4, 3, 2)).astype(np.float32)
    fixed = {
        "W": rng.standard_normal((1, 8, 2)).astype(np.float32),
        "R": rng.standard_normal((1, 8, 2)).astype(np.float32),
    }
    session = InferenceSession(one_node(onnx, make("LSTM", ["X", "W", "R"], ["y"], hidden_size=2), {"X": x}, 14, fixed))
    (clean,) = session.run(None, {"X": x})
    x[1, 1] = np.nan
    (y,) = session.run(None, {"X": x})
    assert np.isnan(y[1:, 0, 1]).all()
    np.testing.assert_array_equal(y[:, 0, [0, 2]], clean[:, 0, [0, 2]])
    np.testing.assert_array_equal(y[0], clean[0])


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"direction": "sideways"}, "direction 'sideways'"), ({"activations": ["Tanh"]}, "activations"),
        ({"activations": ["Sigmoid", "Tanh", "Sine"]}, "activation 'Sine'"), ({"hidden_size": 5}, "W has the shape"),
        ({"lengths": np.array([1, 9], np.int32)}, "sequence_lens"),
        ({"lengths": np.array([1], np.int32)}, "sequence_lens"),
        ({"h": np.zeros((1, 1, 3), np.float32)}, "initial_h"), ({"P": np.zeros((1, 4), np.float32)}, "P has the shape"),
        ({"X": np.zeros((2, 2), np.float32)}, "three axes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(changed, text):
    given: dict[str, Any] = {"X": np.zeros((4, 2, 2), np.float32), "W": np.zeros((1, 12, 2), np.float32),
                             "R": np.zeros((1, 12, 3), np.float32)}  # fmt: skip
    given |= {name: value for name, value in changed.items() if name in NAMES}
    options = {name: value for name, value in changed.items() if name not in NAMES}
    node = make("LSTM", [name if name in given else "" for name in NAMES], ["y"], **{"hidden_size": 3, **options})
    with pytest.raises(OnnxError, match=f"LSTM node.*{text}"):
        InferenceSession(one_node(onnx, node, given, 14)).run(None, given)
