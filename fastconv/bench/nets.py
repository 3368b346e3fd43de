"""Whole networks: inference beside the libraries that run networks, and training steps beside PyTorch.

Every library runs the same net with the same weights: PyTorch its own modules, the others models built from ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .._core.threads import get_num_threads, set_num_threads
from ..models import Sequential, cifar_vgg, mnist_net, resnet, vgg
from ..optimizers import SGD
from .cases import NET, TRAIN
from .graph import ncnn_net, nodes, onnx_net, torch_net
from .measure import Candidate, check, relative_error
from .peers import FROM_NHWC, Ncnn, NotOffered, OnnxRuntime, OpenVino, Ours, Peer, Torch, holding
from .report import OURS, Row
from .suite import collect, timed_row

LEARNING_RATE: Final = 1e-3  # small: many steps on one batch must not end in infinities or in zeros
MOMENTUM: Final = 0.9
CHECKED_STEPS: Final = 3  # losses that are compared before the timing
TRAINING_TOLERANCE: Final = 1e-3
PASSES_A_STEP: Final = 3  # forward, gradient of the input, gradient of the weights: each as many multiply-adds


@dataclass(frozen=True)
class Net:
    """A network at one batch."""

    name: str
    make: Callable[[], Sequential]
    batch: int
    training: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}, batch {self.batch}"


NETS: Final = [
    Net(name, make, batch)
    for name, make in (("VGG-16", lambda: vgg("D", seed=0)), ("ResNet-50", lambda: resnet(50, seed=0)))
    for batch in (1, 8)
]
TRAININGS: Final = [
    Net("VGG-like CIFAR net", lambda: cifar_vgg(seed=0), 64, training=True),
    Net("MNIST-like net", lambda: mnist_net(seed=0), 128, training=True),
]


def select_nets(inference: bool, training: bool, only: str | None = None) -> list[Net]:
    """The networks to measure whose label holds the text `only`."""
    nets = (NETS if inference else []) + (TRAININGS if training else [])
    return [net for net in nets if only is None or only in net.label]


def prepared(model: Sequential) -> Sequential:
    """The model with running statistics as after training: drawn, and such that residual blocks do not add up.

    As made, every normalisation is the identity, which a library that left it out would get right.
    """
    random = np.random.default_rng(1)
    for name, parameter in model.named_parameters():
        kind = name.rpartition("/")[2]
        if kind in ("gamma", "moving_variance"):
            last = "bn3" in name  # what a bottleneck adds to its shortcut
            parameter.assign(random.uniform(0.5, 1.5, parameter.shape) * (0.25 if last and kind == "gamma" else 1))
        elif kind in ("beta", "moving_mean", "bias"):
            parameter.assign(0.1 * random.standard_normal(parameter.shape))
    return model


def log_scores(probabilities: Any) -> Array:
    """log p less its mean over the classes: the logits but for a constant, which one saturated class cannot hide."""
    logits: Array = np.log(np.asarray(probabilities, np.float64))
    centred: Array = logits - logits.mean(axis=-1, keepdims=True)
    return centred


def run_net(
    net: Net, ours: Ours, peers: Sequence[Peer], rounds: int, seconds: float | None = None, by_onnx: bool = False
) -> Row:
    """Check and time one network; `by_onnx` runs ours, too, from the ONNX file that the others get."""
    before = get_num_threads()
    set_num_threads(ours.threads)
    try:
        with holding(peers):
            if net.training:
                return _run_training(net, ours, peers, rounds, seconds)
            return _run_inference(net, ours, peers, rounds, seconds, by_onnx)
    finally:
        set_num_threads(before)


# ---- inference -----------------------------------------------------------------------------------------------------


def inference_candidates(peer: Peer, model: Sequential, images: Array) -> list[Candidate]:
    """The net on images (N, C, H, W), in each memory format that the peer takes."""
    assert model.built_shape is not None
    output_shape = (len(images), model.output_shape((None, *model.built_shape))[1])
    shape: Any = output_shape
    if isinstance(peer, Torch):
        return _torch_inference(peer, model, images)
    graph = nodes(model)
    if isinstance(peer, Ncnn):
        net = peer.net(*ncnn_net(graph))
        return [peer.candidate(net, [peer.mat(image) for image in images], "its own")]
    if isinstance(peer, OnnxRuntime):
        return [peer.candidate(onnx_net(graph, images.shape, shape), images, shape)]
    if isinstance(peer, OpenVino):
        serialized = onnx_net(graph, images.shape, shape)
        return [peer.candidate(serialized, images, shape, layout) for layout in ("NCHW", "NHWC")]
    raise NotOffered("layers only")


def _torch_inference(peer: Torch, model: Sequential, images: Array) -> list[Candidate]:
    torch = peer.torch
    assert model.built_shape is not None

    def candidate(name: str, memory_format: Any) -> Candidate:
        net = torch_net(model.layers, model.built_shape or ()).eval().to(memory_format=memory_format)
        x = torch.from_numpy(images.copy()).to(memory_format=memory_format)

        def run() -> Any:
            with torch.inference_mode():
                return net(x)

        return Candidate(peer.name, name, run, lambda y: np.asarray(y.numpy()))

    return [candidate(*pair) for pair in formats(torch)]


def formats(torch: Any) -> list[tuple[str, Any]]:
    return [("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)]


def _onnx_session(model: Sequential, images: Array, ours: Ours) -> Candidate:
    """The net as `fastconv.onnx` runs it: images (N, C, H, W) and a new result each time."""
    from ..onnx import InferenceSession

    assert model.built_shape is not None
    shape: Any = (len(images), model.output_shape((None, *model.built_shape))[1])
    session = InferenceSession(onnx_net(nodes(model), images.shape, shape), num_threads=ours.threads)
    return Candidate(OURS, "ONNX", lambda: session.run(None, {"x": images})[0], np.asarray)


def _run_inference(
    net: Net, ours: Ours, peers: Sequence[Peer], rounds: int, seconds: float | None, by_onnx: bool = False
) -> Row:
    """Check everybody's answer against our layers' plain forward pass, then time them beside each other."""
    model = prepared(net.make())
    assert model.built_shape is not None
    x = np.random.default_rng(0).standard_normal((net.batch, *model.built_shape), np.float32)
    answer = log_scores(model.forward(x))
    model.release()
    images = np.ascontiguousarray(x.transpose(FROM_NHWC))
    if by_onnx:
        candidates = [_onnx_session(model, images, ours)]
    else:
        plan = model.compile_inference()
        candidates = [Candidate(OURS, "NHWC", lambda: plan.run(x), np.asarray)]
    _logits(candidates[0])
    check(candidates[0], answer, "float32")

    def offered(peer: Peer) -> list[Candidate]:
        made = inference_candidates(peer, model, images)
        for one in made:
            _logits(one)
            check(one, answer, "float32")
        return made

    absent = collect(peers, offered, candidates)
    macs = net.batch * model.macs((None, *model.built_shape))
    return _row(net, NET, macs, x.shape, candidates, absent, ours, rounds, seconds)


def _logits(candidate: Candidate) -> None:
    read = candidate.read
    candidate.read = lambda y: log_scores(np.asarray(read(y)).reshape(-1, 1000))


# ---- training ------------------------------------------------------------------------------------------------------


def _run_training(net: Net, ours: Ours, peers: Sequence[Peer], rounds: int, seconds: float | None) -> Row:
    """Compare the losses of the first steps, then time steps of SGD with momentum beside each other."""
    model = net.make()
    assert model.built_shape is not None
    random = np.random.default_rng(0)
    x = random.standard_normal((net.batch, *model.built_shape), np.float32)
    labels = random.integers(0, 10, net.batch)
    model.compile(SGD(LEARNING_RATE, momentum=MOMENTUM))
    # PyTorch's modules copy the weights before our first step changes them.
    made = {peer.name: _torch_training(peer, model, x, labels) for peer in peers if isinstance(peer, Torch)}
    candidates = [Candidate(OURS, "NHWC", lambda: model.train_on_batch(x, labels)[0], np.asarray)]
    answer = losses(candidates[0])
    candidates[0].error = 0.0

    def offered(peer: Peer) -> list[Candidate]:
        if peer.name not in made:
            raise NotOffered("inference only")
        for one in made[peer.name]:
            one.error = relative_error(losses(one), answer)
            one.correct = one.error <= TRAINING_TOLERANCE
        return made[peer.name]

    absent = collect(peers, offered, candidates)
    macs = PASSES_A_STEP * net.batch * model.macs((None, *model.built_shape))
    return _row(net, TRAIN, macs, x.shape, candidates, absent, ours, rounds, seconds)


def losses(candidate: Candidate) -> Array:
    """The losses of the first steps: the second and later ones are right only if the gradients are."""
    return np.array([float(candidate.run()) for _ in range(CHECKED_STEPS)])


def _torch_training(peer: Torch, model: Sequential, x: Array, labels: Array) -> list[Candidate]:
    torch = peer.torch

    def candidate(name: str, memory_format: Any) -> Candidate:
        net = torch_net(model.layers, model.built_shape or (), softmax=False).to(memory_format=memory_format)
        optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=MOMENTUM)
        images = torch.from_numpy(x.transpose(FROM_NHWC).copy()).to(memory_format=memory_format)
        targets = torch.from_numpy(labels)

        def run() -> Any:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(images), targets)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return Candidate(peer.name, name, run, np.asarray)

    return [candidate(*pair) for pair in formats(torch)]


# ---- rows ----------------------------------------------------------------------------------------------------------


def _row(
    net: Net, pass_name: str, macs: int, shape: tuple[int, ...], candidates: list[Candidate], absent: dict[str, str],
    ours: Ours, rounds: int, seconds: float | None,
) -> Row:  # fmt: skip
    described = {"input": list(shape), "dtype": "float32"}
    return timed_row(
        candidates, absent, ours.threads, rounds, seconds, "float32", set="nets", layer=net.label, family=net.name,
        pass_name=pass_name, counted=True, count=1, macs=macs, shape=described,
    )  # fmt: skip
