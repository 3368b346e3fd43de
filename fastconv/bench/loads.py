"""Loading ONNX models: the time from the bytes of a file to a session, and to its first results."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .._core.threads import get_num_threads, set_num_threads
from ..models import resnet
from .cases import LOAD
from .graph import nodes, onnx_net
from .measure import Candidate, check
from .nets import log_scores, prepared
from .peers import FROM_NHWC, NotOffered, OnnxRuntime, Ours, Peer, holding, module, serialized
from .report import OURS, Row
from .suite import collect, timed_row

FEEDS: Final = np.linspace(-1, 1, 36, dtype=np.float32).reshape(1, 4, 3, 3)


@dataclass(frozen=True)
class Model:
    """An ONNX model from `x` to `y`: its bytes, what to feed and the right answer, all made when it is measured."""

    name: str
    make: Callable[[], tuple[bytes, Array, Array]]
    scores: bool = False  # probabilities, of which the logarithms are compared

    @property
    def label(self) -> str:
        return self.name


def _chain(op_type: str, count: int, answer: Callable[[Array], Array]) -> tuple[bytes, Array, Array]:
    """Nodes behind each other; those of two inputs have the shared weight of a convolution that changes nothing."""
    make = module("onnx").helper.make_node
    more = ["w"] if op_type == "Conv" else []
    names = ["x", *(f"v{i}" for i in range(1, count)), "y"]
    made = [make(op_type, [a, *more], [b]) for a, b in pairwise(names)]
    weights: dict[str, Array] = {"w": np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)} if more else {}
    return serialized(made, weights, FEEDS.shape, FEEDS.shape), FEEDS, answer(FEEDS)


def _fan(count: int) -> tuple[bytes, Array, Array]:
    """One value that many nodes read, and one node that reads what they make."""
    make = module("onnx").helper.make_node
    names = [f"v{i}" for i in range(count - 1)]
    made = [*(make("Relu", ["x"], [name]) for name in names), make("Concat", names, ["y"], axis=1)]
    answer = np.tile(np.maximum(FEEDS, 0), (1, count - 1, 1, 1))
    return serialized(made, {}, FEEDS.shape, answer.shape), FEEDS, answer


def _resnet() -> tuple[bytes, Array, Array]:
    model = prepared(resnet(50, seed=0))
    assert model.built_shape is not None
    x = np.random.default_rng(0).standard_normal((1, *model.built_shape), np.float32)
    answer = np.asarray(model.forward(x))
    images = np.ascontiguousarray(x.transpose(FROM_NHWC))
    return onnx_net(nodes(model), images.shape, answer.shape), images, answer


MODELS: Final = [
    Model("ResNet-50", _resnet, scores=True),
    Model("Relu x 20,000", lambda: _chain("Relu", 20_000, lambda x: np.maximum(x, 0))),
    Model("Identity x 20,000", lambda: _chain("Identity", 20_000, np.copy)),
    Model("Conv x 2,000", lambda: _chain("Conv", 2_000, np.copy)),
    Model("Relu x 5,000 into Concat", lambda: _fan(5_000)),
]


def select_loads(only: str | None = None) -> list[tuple[Model, bool]]:
    """The models whose name holds the text `only`, each without and with its first run."""
    return [(model, first) for model in MODELS if only is None or only in model.name for first in (False, True)]


def run_load(model: Model, first: bool, ours: Ours, peers: Sequence[Peer], rounds: int, seconds: float | None) -> Row:
    """Check what every session answers, then time making it and, with `first`, its first run."""
    before = get_num_threads()
    set_num_threads(ours.threads)
    try:
        with holding(peers):
            return _row(model, first, ours, peers, rounds, seconds)
    finally:
        set_num_threads(before)


def _row(model: Model, first: bool, ours: Ours, peers: Sequence[Peer], rounds: int, seconds: float | None) -> Row:
    from ..onnx import InferenceSession

    data, x, answer = model.make()
    read = log_scores if model.scores else np.asarray

    def candidate(name: str, load: Callable[[], Any]) -> Candidate:
        def run() -> Any:
            gc.enable()  # objects by the thousand are part of it; the clock's turns are without
            try:
                session = load()
                if first:
                    session.run(None, {"x": x})
            finally:
                gc.disable()
            return session

        made = Candidate(name, "ONNX", run, lambda session: read(session.run(None, {"x": x})[0]))
        check(made, np.asarray(read(answer), np.float64), "float32")
        return made

    candidates = [candidate(OURS, lambda: InferenceSession(data, num_threads=ours.threads))]

    def offered(peer: Peer) -> list[Candidate]:
        if not isinstance(peer, OnnxRuntime):
            raise NotOffered("is not compared in loading")
        return [candidate(peer.name, lambda: peer.session(data))]

    absent = collect(peers, offered, candidates)
    return timed_row(
        candidates, absent, ours.threads, rounds, seconds, "float32", set="onnx", family=model.name, pass_name=LOAD,
        layer=f"{model.label}{', first run' if first else ''}", counted=True, count=1, macs=0,
        shape={"input": list(x.shape), "dtype": "float32", "bytes": len(data)},
    )  # fmt: skip
