"""What a net is, as JSON text: the classes of its layers, what they were made with, the wiring, and how it trains.

Nothing in the text is run: classes are those of `fastconv.layers`, or such as the caller passes by name, and what they
are made with are numbers, words and lists of them. Weights are not in it.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .. import layers as public
from .. import losses, optimizers
from .._core.arguments import by_name
from .._core.rounding import checked_halves, require_single
from ..errors import ConvError
from ..layers.activations import FUNCTIONS, Function, leaky_relu, relu_up_to
from ..layers.base import Layer, Parameter, Sample
from ..layers.core import Dropout
from ..layers.initializers import INITIALIZERS
from ..layers.symbolic import input_tensor
from .measures import ACCURACY, accuracy

if TYPE_CHECKING:
    from .net import Net

FORMAT: Final = 1
NETS: Final = ("Sequential", "Model")
CLASSES: Final[dict[str, type[Layer]]] = {
    name: getattr(public, name) for name in public.__all__ if name not in ("Layer", "Parameter")
}
MAKERS: Final[dict[str, Callable[..., Function]]] = {"leaky_relu": leaky_relu, "relu_up_to": relu_up_to}
OPTIMIZERS: Final = {made.__name__: made for made in (optimizers.SGD, optimizers.Adam, optimizers.AdamW)}
SCHEDULES: Final = {
    made.__name__: made
    for made in (optimizers.CosineDecay, optimizers.ExponentialDecay, optimizers.PiecewiseConstantDecay)
}
KEPT_APART: Final = ("name", "trainable")  # which may have changed
LOSSES: Final = {made.__name__: made for made in losses.LOSSES.values()}


class Untold(Exception):
    """Why something cannot be said in the text."""


def described(net: Net) -> dict[str, Any]:
    """The text's contents; where a part cannot be told, why, of which a warning says so too."""
    made: dict[str, Any] = {"format": FORMAT}
    for part, tell in (("net", _Teller().layer), ("training", _training)):
        if part == "training" and net.optimizer is None:
            continue
        try:
            made[part] = tell(net)
            json.dumps(made[part])
        except (Untold, TypeError, ValueError) as error:
            made[part] = {"untold": str(error)}
            lost = "load_model cannot make the net again" if part == "net" else "load_model gives it uncompiled"
            warnings.warn(f"{net.name} is saved with its weights, but {lost}: {error}", UserWarning, stacklevel=4)
    shapes: Any = net.built_shape
    made["shapes"] = [list(shape) for shape in (shapes if net.merges else [shapes])]
    return made


class _Teller:
    """Tells layers; one that it has told before is named by its number."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}

    def layer(self, layer: Layer) -> dict[str, Any]:
        if id(layer) in self.numbers:
            return {"same": self.numbers[id(layer)]}
        self.numbers[id(layer)] = len(self.numbers)
        made: dict[str, Any] = {
            "class": type(layer).__name__, "name": layer.name, "named": layer._given_name is not None,
            "trainable": layer.trainable,
        }  # fmt: skip
        if layer.precision is not None:
            made["precision"] = layer.precision
        if layer.is_net and type(layer).__name__ in NETS and type(layer).__module__.startswith(__package__):
            return made | self.net(layer)
        if CLASSES.get(type(layer).__name__) is not type(layer):
            made["custom"] = True
        try:
            given = by_name(layer)
        except TypeError as error:
            raise Untold(f"{layer.name}: {error}") from None
        told = {name: self.value(layer, name, value) for name, value in given.items() if name not in KEPT_APART}
        made["arguments"] = {name: value for name, value in told.items() if value is not Ellipsis}
        if isinstance(layer, Dropout):
            state = layer.random.bit_generator.state
            if state.get("bit_generator") == "PCG64":
                numbers: Any = state["state"]  # too large for many readers of JSON
                made["draws"] = {**state, "state": {name: str(number) for name, number in numbers.items()}}
            made["seeded"] = layer.seeded
        return made

    def net(self, net: Any) -> dict[str, Any]:
        made = {"dtype": net.dtype.name, "layers": [self.layer(inner) for inner in net.layers]}
        if net.is_chain:
            return made | {"channels_last": net.channels_last}
        places = {id(layer): place for place, layer in enumerate(net.layers)}
        calls = [[places[id(call.layer)], list(call.inputs), call.training] for call in net.wiring.calls]
        inputs = [{"name": n, "shape": list(s)} for n, s in zip(net.input_names, net._sizes, strict=True)]
        return made | {"inputs": inputs, "calls": calls, "outputs": list(net.wiring.outputs)}

    def value(self, layer: Layer, name: str, value: Any) -> Any:
        """An argument in the text; `...` where it is left out, as the weights are in the file."""
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (np.generic, np.ndarray)):
            return value.tolist()
        if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
            return np.dtype(value).name
        if isinstance(value, Layer):
            return {"layer": self.layer(value)}
        if isinstance(value, (list, tuple)):
            return [self.value(layer, name, inner) for inner in value]
        if isinstance(value, Function):
            return _function(layer, value)
        if callable(value) and name.endswith("initializer"):
            known = getattr(value, "__name__", "")
            return known if INITIALIZERS.get(known) is value else ...
        raise Untold(f"{layer.name} was made with {name}={value!r}, which is no number, word, layer or list of them")


def _function(layer: Layer, value: Function) -> dict[str, Any]:
    if FUNCTIONS.get(value.name) is value:
        return {"function": value.name}
    if value.made_by and value.made_by[0] in MAKERS.values():
        return {"function": value.made_by[0].__name__, "arguments": list(value.made_by[1])}
    raise Untold(f"{layer.name} has an activation of the caller's own, {value.name!r}")


# ---- training -------------------------------------------------------------------------------------------------------


def _training(net: Net) -> dict[str, Any]:
    """Optimiser, losses and metrics; the state's arrays are told by how many each weight has."""
    optimizer, objective = net._compiled()
    metrics = [
        [name if name != ACCURACY or function is accuracy else {"custom": name} for name, function in each]
        for each in objective.metrics
    ]
    return {
        "optimizer": _optimizer(optimizer), "iterations": optimizer.iterations, "spared": list(optimizer._spared),
        "losses": [None if loss is None else _plain(loss, LOSSES) for loss in objective.losses],
        "loss_weights": objective.weights, "metrics": metrics,
        "slots": {n: len(kept) for n, p in net.named_parameters() if (kept := optimizer.slots(p))},
    }  # fmt: skip


def _optimizer(optimizer: optimizers.Optimizer) -> dict[str, Any]:
    names = list(inspect.signature(type(optimizer)).parameters)
    values = {name: getattr(optimizer, name, None) for name in names}
    rate = values.get("learning_rate")
    if SCHEDULES.get(type(rate).__name__) is type(rate):
        values["learning_rate"] = {"class": type(rate).__name__, "arguments": _numbers(by_name(rate))}
    elif callable(rate):
        raise Untold("its learning rate is a function of the caller's own")
    return _named(optimizer, OPTIMIZERS) | {"arguments": values}


def _plain(value: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    return _named(value, known) | {"arguments": _numbers(vars(value))}


def _named(value: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    own = {} if known.get(type(value).__name__) is type(value) else {"custom": True}
    return {"class": type(value).__name__, **own}


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    made = {}
    for name, value in values.items():
        made[name] = value = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
        if not isinstance(value, (bool, int, float, str, list, tuple, type(None))):
            raise Untold(f"{name}={value!r} is no number, word or list of them")
    return made


# ---- from the text --------------------------------------------------------------------------------------------------


class Training:
    """How a net was trained, read and not yet given to it; `slots` says how many arrays each weight has."""

    def __init__(self, told: Any, custom: Mapping[str, Any]) -> None:
        self.custom = custom
        self.iterations, self.slots = _count(told["iterations"]), _dictionary(told["slots"])
        if not all(isinstance(count, int) and 0 < count < 9 for count in self.slots.values()):
            raise ConvError("the state of its optimiser is damaged")
        about = told["optimizer"]
        arguments = dict(_dictionary(about["arguments"]))
        rate = arguments.get("learning_rate")
        if isinstance(rate, dict):
            arguments["learning_rate"] = _class(rate, SCHEDULES, custom)(**_dictionary(rate["arguments"]))
        self.optimizer = _class(about, OPTIMIZERS, custom)(**arguments)
        self.optimizer.exclude_from_weight_decay([str(word) for word in told["spared"]])
        self.losses = [
            None if loss is None else _class(loss, LOSSES, custom)(**_dictionary(loss["arguments"]))
            for loss in told["losses"]
        ]
        self.weights = list(told["loss_weights"])
        self.precision = told.get("precision")  # of files whose layers do not have theirs
        self.metrics = [
            [
                name if name == ACCURACY else _own(str(name["custom"] if isinstance(name, dict) else name), custom)
                for name in each
            ]
            for each in told["metrics"]
        ]

    def apply(self, net: Net, slots: Sequence[tuple[Parameter, list[Any]]]) -> None:
        """Compile the net, and go on where the training was."""
        precision = net.precision or self.precision
        net.compile(self.optimizer, self.losses, self.metrics, self.weights, precision=precision)
        self.optimizer.resume(self.iterations, slots)


def restored(text: str, custom: Mapping[str, Any], trains: bool) -> tuple[Net, Training | None]:
    """The net that a text tells, built, and how it was trained, if that is asked for and told."""
    try:
        told = json.loads(text)
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise ConvError(f"it tells its net in another form than {FORMAT}: a newer fastconv may read it")
        if "untold" in told["net"]:
            why = told["net"]["untold"]
            raise ConvError(f"it holds weights alone, as saving said: {why}; make the net and load them")
        net: Any = _Maker(custom).whole(told["net"])
        if not net.is_net:
            raise ConvError("what it tells is no net")
        shapes = [Sample(tuple(_count(size) for size in shape)) for shape in told["shapes"]]
        net.build(shapes if net.merges else shapes[0])
        about = told.get("training")
        training = Training(about, custom) if trains and about is not None and "untold" not in about else None
        return net, training
    except (ConvError, MemoryError):
        raise
    except RecursionError:
        raise ConvError("what it tells of its net is nested too deeply") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConvError(f"what it tells of its net is damaged ({type(error).__name__}: {error})") from error


class _Maker:
    """Makes layers; a number stands for one that it has made."""

    def __init__(self, custom: Mapping[str, Any]) -> None:
        self.custom = custom
        self.made: list[Layer | None] = []
        self.precisions: list[tuple[Layer, str | None]] = []  # for the end, as a chain gives its own to what is added

    def whole(self, told: Any) -> Layer:
        """The outermost layer, with all that is in it."""
        made = self.layer(told)
        for layer, precision in self.precisions:
            layer.precision = precision
        return made

    def layer(self, told: Any) -> Layer:
        if "same" in told:
            found = self.made[_count(told["same"])]
            if found is None:
                raise ConvError("a layer lies in itself")
            return found
        place = len(self.made)
        self.made.append(None)
        if told["class"] in NETS and "layers" in told:
            layer: Layer = self.net(told)
        else:
            arguments = {str(name): self.value(value) for name, value in _dictionary(told["arguments"]).items()}
            layer = _class(told, CLASSES, self.custom)(**arguments)
            if not isinstance(layer, Layer):
                raise ConvError(f"{told['class']!r} is no layer")
        layer.trainable = bool(told["trainable"])
        halves = checked_halves(None, told.get("precision"))
        require_single(halves, layer.dtype)
        self.precisions.append((layer, halves.packed or None))
        _call(layer, told)
        if isinstance(layer, Dropout):
            _resume_draws(layer, told)
        self.made[place] = layer
        return layer

    def net(self, told: Any) -> Layer:
        from .functional import Model  # here, as nets are built on this module
        from .sequential import Sequential

        layers = [self.layer(inner) for inner in told["layers"]]
        if told["class"] == "Sequential":
            order = "channels_last" if told["channels_last"] else "channels_first"
            chain = Sequential((), dtype=told["dtype"], data_format=order)
            for layer in layers:
                chain.add(layer)
            return chain
        values: list[Any] = [input_tensor(about["shape"], told["dtype"], about["name"]) for about in told["inputs"]]
        begin = list(values)
        for number, taken, training in told["calls"]:
            layer = layers[_count(number)]
            given = [values[_count(at)] for at in taken]
            made = layer(given if layer.merges else given[0], None if training is None else bool(training))
            values += made if isinstance(made, list) else [made]
        return Model(begin, [values[_count(at)] for at in told["outputs"]])

    def value(self, told: Any) -> Any:
        if isinstance(told, list):
            return tuple(self.value(inner) for inner in told)
        if not isinstance(told, dict):
            return told
        if "layer" in told:
            return self.layer(told["layer"])
        name = told["function"]
        return MAKERS[name](*map(float, told["arguments"])) if "arguments" in told else FUNCTIONS[name]


def _call(layer: Layer, told: Any) -> None:
    """Give a layer the name that it had, which no net then changes."""
    name = told["name"]
    if not isinstance(name, str):
        raise ConvError("a layer has no name")
    layer.name, layer._named = name, True
    layer._given_name = name if told["named"] else None


def _resume_draws(layer: Dropout, told: Any) -> None:
    layer.seeded = bool(told.get("seeded", False))
    state = told.get("draws")
    if state is not None:
        bits = np.random.PCG64(0)
        kept: Any = {
            "bit_generator": "PCG64", "has_uint32": int(state["has_uint32"]), "uinteger": int(state["uinteger"]),
            "state": {name: int(str(state["state"][name])[:48]) for name in ("state", "inc")},
        }  # fmt: skip
        bits.state = kept
        layer.random = np.random.Generator(bits)


def _class(told: Any, known: Mapping[str, Any], custom: Mapping[str, Any]) -> Any:
    name = told["class"]
    return _own(str(name), custom) if told.get("custom") or name not in known else known[name]


def _own(name: str, custom: Mapping[str, Any]) -> Any:
    if name not in custom:
        raise ConvError(
            f"it needs {name!r}, which is the caller's own: pass custom_objects={{{name!r}: {name}}}, or "
            "compile=False if that is for training"
        )
    return custom[name]


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ConvError(f"{value!r} stands where a number of something must")
    return value


def _dictionary(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConvError(f"{value!r} stands where values by name must")
    return value
