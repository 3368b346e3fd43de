"""A model that a person names at the terminal, ready to run on arrays of the right shapes.

Names of `fastconv.models`, ONNX files, and functions in files of one's own, which return a model of layers, what
`compile_inference` gave, an `InferenceSession`, or an ONNX model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .._core.named import named_function
from ..errors import ConvError
from ..graph.summary import Profile
from ..layers.base import Sample
from ..models.catalogue import from_catalogue
from .common import CommandError, require

IMAGE_AXES: Final = 3  # of a sample
CHANNELS: Final = 3  # of an ONNX input that leaves even these open
Size = tuple[int, int] | None


@dataclass(frozen=True)
class Given:
    """A model, what it is fed, and how it is profiled: the mean of so many runs."""

    title: str
    feeds: dict[str, Array]
    profile: Callable[[int], Profile]


def given_model(text: str, size: Size = None, batch: int | None = None) -> Given:
    """The model that `text` names, prepared for a batch of images of this size (height, width), by default its own.

    Raises `CommandError` and `ConvError`, which say what cannot be profiled and why.
    """
    place, colon, attribute = text.rpartition(":")
    if colon and place:
        model = _returned(text, named_function(place, attribute))
        return _of_python(Path(place).name + colon + attribute, text, model, size, batch)
    if text.lower().endswith(".onnx"):
        require("onnx", "onnx")
        from ..onnx import InferenceSession

        return _of_session(Path(text).name, InferenceSession(text), size, batch)
    return _of_layers(text, from_catalogue(text, size, seed=0), None, batch)


def _returned(text: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:  # whatever it does
        reason = f"{type(error).__name__}: {error}"
        raise ConvError(f"{text} does not return a model when it is called without arguments ({reason}).") from error


def _of_python(title: str, text: str, model: Any, size: Size, batch: int | None) -> Given:
    """Whatever a function returned."""
    from ..models.inference import InferencePlan

    if hasattr(model, "compile_inference") or isinstance(model, InferencePlan):
        return _of_layers(title, model, size, batch)
    if isinstance(model, bytes) or (hasattr(model, "graph") and hasattr(model, "SerializeToString")):
        require("onnx", "onnx")
        from ..onnx import InferenceSession

        model = InferenceSession(model)
    if hasattr(model, "get_inputs") and hasattr(model, "profile"):
        return _of_session(title, model, size, batch)
    raise CommandError(
        f"{text} must return a model of fastconv (layers, a plan or an InferenceSession) or an ONNX model, but "
        f"returned a {type(model).__name__}; export models of other libraries to ONNX"
    )


def _of_layers(title: str, model: Any, size: Size, batch: int | None) -> Given:
    """A model of layers, or what was prepared of it."""
    plan = model
    if hasattr(model, "compile_inference"):
        samples: Any = None
        if size is not None and model.built_shape is not None:
            built = model.built_shape if model.merges else (model.built_shape,)
            samples = [
                Sample(_sized(own, size, _channels_last(model, number))) for number, own in enumerate(built)
            ]
        plan = model.compile_inference(samples if samples is None or model.merges else samples[0])
    elif size is not None:
        shapes = ", ".join(map(str, plan.samples))
        raise CommandError(f"{title} was prepared for samples of {shapes}; leave out --input-size")
    feeds = {
        name: _drawn((batch or 1, *sample), plan.model.dtype)
        for name, sample in zip(plan.model.input_names, plan.samples, strict=True)
    }
    return Given(title, feeds, lambda runs: plan.profile(feeds, runs))


def _sized(sample: Any, size: tuple[int, int], channels_last: bool) -> tuple[int, ...]:
    """The shape of a sample where images are of another size."""
    if len(sample) != IMAGE_AXES:
        return tuple(sample)
    return (*size, sample[-1]) if channels_last else (sample[0], *size)


def _channels_last(model: Any, number: int) -> bool:
    """Whether an input of a net is channels last, as the first layer of images behind it has it."""
    return _said(model, number) is not False


def _said(model: Any, number: int) -> bool | None:
    """What layers behind a value of a net say of its channels; None where none does."""
    values = {number}
    for call in model.wiring.calls:
        if values.isdisjoint(call.inputs):
            continue
        layer = call.layer
        at = next(at for at, value in enumerate(call.inputs) if value in values)
        found = _said(layer, at) if layer.is_net else _said_by(layer)
        if found is not None:
            return found
        values.update(call.outputs)  # of a function of single values, say
    return None


def _said_by(layer: Any) -> bool | None:
    """The same of a layer, or of those in a residual block."""
    if layer.is_net:
        return _said(layer, 0)
    inside = (*getattr(layer, "body", ()), *getattr(layer, "shortcut", ()))
    if inside:
        return next((found for one in inside if (found := _said_by(one)) is not None), None)
    return bool(layer.channels_last) if layer.reads_images or not layer.channels_last else None


def _of_session(title: str, session: Any, size: Size, batch: int | None) -> Given:
    """A session with inputs of its declared types."""
    from ..graph.tensors import numpy_type

    feeds = {}
    for value in session.get_inputs():
        if not value.type.startswith("tensor(") or value.type == "tensor(string)":
            raise CommandError(f"input {value.name!r} is a {value.type}; profile the model from Python")
        feeds[value.name] = _drawn(input_shape(value, size, batch), numpy_type(value.element_type))
    return Given(title, feeds, lambda runs: session.profile(feeds, runs))


def _drawn(shape: tuple[int, ...], kind: Any) -> Array:
    """Numbers from 0 to 1, the same each time; of integers ones, which most vocabularies and sizes have."""
    if np.dtype(kind).kind in "fc":
        return np.random.default_rng(0).random(shape, np.float32).astype(kind)
    return np.ones(shape, kind)


def input_shape(value: Any, size: Size = None, batch: int | None = None) -> tuple[int, ...]:
    """The declared shape of an input: `batch` samples, else one, and `size` where the sides of an image are open."""
    declared = value.shape
    if declared is None:
        raise CommandError(f"input {value.name!r} declares no shape; run the model from Python")
    made = [axis if isinstance(axis, int) and axis > 0 else 0 for axis in declared]
    if made and batch and made[0] not in (0, batch):
        raise CommandError(f"input {value.name!r} is {list(declared)}; it takes no --batch {batch}")
    if made and not made[0]:
        made[0] = batch or 1
    if len(made) == 4:
        last = made[3] in (1, CHANNELS) and made[1] not in (1, CHANNELS)
        channel, sides = (3, (1, 2)) if last else (1, (2, 3))
        made[channel] = made[channel] or CHANNELS
        for axis, side in zip(sides, size or (0, 0), strict=True):
            if made[axis] and side and made[axis] != side:
                raise CommandError(f"input {value.name!r} is {list(declared)}; it takes no --input-size {side}")
            made[axis] = made[axis] or side
    if not all(made):
        raise CommandError(f"input {value.name!r} is {list(declared)}; give the open sides with --input-size")
    return tuple(made)
