"""What a net learns: for every output a loss, its weight and metrics.

A cross-entropy takes what goes into the softmax: `cut` wires the net so that its outputs are those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .. import losses
from .._core.arrays import as_array
from ..errors import ConvError, ConvTypeError
from ..layers.activations import Softmax, softmax
from ..layers.base import Array, real, said_anew
from .measures import Metric, accuracy, ends_in_softmax, is_softmax, metric
from .wiring import Call, Wiring


class Objective:
    """Losses, weights and metrics of all outputs, as `compile` takes them.

    Parameters
    ----------
    outputs : sequence of str
        The names of the outputs.
    loss, metrics, loss_weights : Any
        See `compile`.
    """

    def __init__(self, outputs: Sequence[str], loss: Any, metrics: Any, loss_weights: Any) -> None:
        self.outputs = list(outputs)
        self.losses = [None if one is None else losses.loss(one) for one in self._each("loss", loss)]
        if not any(self.losses):
            raise ConvError("loss must name a loss for one output at least, but got None.")
        weights = self._each("loss_weights", 1.0 if loss_weights is None else loss_weights)
        self.weights = [real("loss_weights", 1.0 if weight is None else weight) for weight in weights]
        self.metrics = [[metric(one) for one in own] for own in self._metrics(metrics)]
        self._cut: tuple[Wiring, Wiring, list[bool]] | None = None

    def _each(self, name: str, given: Any) -> list[Any]:
        """What was given for each output: alone for all, as a list, or by the outputs' names."""
        count = len(self.outputs)
        if isinstance(given, dict):
            unknown = [key for key in given if key not in self.outputs]
            missing = [key for key in self.outputs if key not in given]
            if unknown or (missing and name == "loss"):
                what = f"{unknown[0]!r} is none" if unknown else f"{missing[0]!r} is missing; None is for no loss"
                raise ConvError(f"{name} must be by the names of the outputs {self.outputs}, of which {what}.")
            return [given.get(key) for key in self.outputs]
        if isinstance(given, (list, tuple)):
            if len(given) != count:
                raise ConvError(
                    f"{name} must have an entry for each of the {count} outputs {self.outputs}, but got {len(given)}; "
                    "a dictionary by their names does too."
                )
            return list(given)
        return [given] * count

    def _metrics(self, given: Any) -> list[list[Any]]:
        if isinstance(given, str):
            raise ConvTypeError(f"metrics must be a list, such as [{given!r}], but got {given!r}.")
        if given is None or (isinstance(given, (list, tuple)) and not given):
            return [[] for _ in self.outputs]
        if len(self.outputs) == 1 and not isinstance(given, dict):
            flat = list(given)
            return [list(flat[0])] if len(flat) == 1 and isinstance(flat[0], (list, tuple)) else [flat]
        each = self._each("metrics", given)
        return [[] if own is None else list(own) if isinstance(own, (list, tuple)) else [own] for own in each]

    @property
    def names(self) -> list[str]:
        """What is measured: the loss, those of the outputs where there are several, the metrics."""
        if len(self.outputs) == 1:
            return ["loss", *(name for name, _ in self.metrics[0])]
        own = [f"{name}_loss" for name, loss in zip(self.outputs, self.losses, strict=True) if loss is not None]
        measured = zip(self.outputs, self.metrics, strict=True)
        return ["loss", *own, *(f"{output}_{name}" for output, each in measured for name, _ in each)]

    @property
    def targets(self) -> list[bool]:
        """For each output whether it needs targets."""
        return [loss is not None or bool(own) for loss, own in zip(self.losses, self.metrics, strict=True)]

    def check(self, targets: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> list[Any]:
        """Targets as the losses take them, for outputs of these shapes; refused before anything is computed."""
        made: list[Any] = []
        for name, loss, target, shape in zip(self.outputs, self.losses, targets, shapes, strict=True):
            if target is None:
                made.append(None)
                continue
            try:
                made.append(as_array("y", target) if loss is None else loss.check(target, shape))
            except (ConvError, ConvTypeError) as error:
                if len(self.outputs) == 1:
                    raise
                raise type(error)(f"output {name}: {error}") from error
        return made

    def require_no_softmax(self, wiring: Wiring, name: str) -> None:
        """Refuse a loss of logits on an output that is a softmax already, and a softmax that cannot be left out."""
        for value, loss in zip(wiring.outputs, self.losses, strict=True):
            maker = wiring.maker(value)
            if maker is not None and getattr(loss, "from_logits", False) and ends_in_softmax(maker.layer):
                raise ConvError(
                    f"loss with from_logits=True takes logits, but {name} ends in a softmax ({maker.layer.name}); "
                    "leave out one of them."
                )
        self.cut(wiring)

    def cut(self, wiring: Wiring) -> Wiring:
        """The net with outputs as the losses take them, kept until the net has other calls."""
        if self._cut is None or self._cut[0] is not wiring:
            self._cut = wiring, *_cut(wiring, self.losses)
        return self._cut[1]

    def __call__(self, outputs: Sequence[Array], targets: Sequence[Any]) -> tuple[list[float], list[Array | None]]:
        """(what `names` names, the gradient of the loss with respect to each output) of outputs that were cut."""
        values: list[float] = []
        grads: list[Array | None] = []
        measured: list[float] = []
        total = 0.0
        left_out = self._cut[2] if self._cut else [False] * len(outputs)
        each = zip(outputs, targets, self.losses, self.weights, self.metrics, left_out, strict=True)
        for output, target, loss, weight, metrics, logits in each:
            grad: Array | None = None
            if loss is not None:
                value, grad = loss(output, target)
                values.append(value)
                total += value if weight == 1 else weight * value
                grad = grad if weight == 1 else grad * grad.dtype.type(weight)
            grads.append(grad)
            measured += [_measured(function, output, target, logits) for _, function in metrics]
        several = values if len(self.outputs) > 1 else []
        return [total, *several, *measured], grads


def _measured(function: Metric, output: Array, target: Any, logits: bool) -> float:
    """A metric of what `predict` would give."""
    return function(softmax(output) if logits and function is not accuracy else output, target)


def _cut(wiring: Wiring, wanted: Sequence[losses.Loss | None]) -> tuple[Wiring, list[bool]]:
    """The net whose outputs lie before the softmax where a loss takes logits, and for which that is so."""
    calls, outputs = list(wiring.calls), list(wiring.outputs)
    left_out = [False] * len(outputs)
    free = max([number for call in calls for number in call.outputs], default=0) + 1
    for place, loss in enumerate(wanted):
        made = Wiring(calls, wiring.inputs, outputs)
        maker = made.maker(outputs[place])
        if loss is None or not loss.from_softmax or maker is None or not ends_in_softmax(maker.layer):
            continue
        alone = made.uses()[outputs[place]] == 1
        at, left_out[place] = calls.index(maker), True
        if is_softmax(maker.layer):
            outputs[place] = maker.inputs[0]
            if alone:
                del calls[at]
        elif said_anew(maker.layer, "forward", "forward_logits"):
            raise ConvError(
                f"{maker.layer.name} ends in a softmax, which the loss {loss.name} takes together with it, and its "
                f"class {type(maker.layer).__name__} overrides forward but not forward_logits: override both, or "
                "leave the softmax to a layers.Softmax() behind it."
            )
        elif not maker.layer.is_net and not hasattr(maker.layer, "forward_logits"):
            raise ConvError(
                f"the softmax of {maker.layer.name} cannot be left to the loss {loss.name}; write it as a layer of its "
                "own, layers.Softmax()."
            )
        elif alone:
            calls[at] = replace(maker, logits=True)
        else:  # others read the probabilities
            last = Softmax(name=f"{maker.layer.name}_softmax", dtype=maker.layer.dtype.name)
            calls[at : at + 1] = [
                replace(maker, outputs=(free,), logits=True), Call(last, (free,), maker.outputs)
            ]  # fmt: skip
            outputs[place], free = free, free + 1
    return Wiring(calls, wiring.inputs, outputs), left_out
