"""One batch: a step of the optimiser, or a measurement; both of any net, by its wiring.

A step computes everything before it changes anything: when the loss is not finite or a shape is wrong, weights and
running statistics are as they were before it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from .. import optimizers
from .._core.rounding import checked_halves, require_single
from ..errors import ConvError, ConvTypeError, keras_has
from ..layers import memory
from ..layers.base import Array, Layer, all_layers
from .data import Batch, bare, listed, named_arrays, same_length
from .objective import Objective
from .wiring import Wiring, back, run


def refuse_others(method: str, others: dict[str, Any]) -> None:
    """Say whose an argument of Keras' is that a method here does not take."""
    if others:
        raise ConvTypeError(f"{method} does not take {', '.join(others)}; {keras_has(method)}")


class Steps:
    """Compiling, and what is done with one batch; of the class that it joins it needs what is declared here."""

    name: str
    input_names: Sequence[str]
    output_names: Sequence[str]
    optimizer: optimizers.Optimizer | None = None
    loss: Any = None
    metrics: Sequence[Any] = ()
    precision: str | None  # what operands are rounded to
    _objective: Objective | None = None
    _arena: memory.Arena  # activations and gradients of a step, used again by the next

    @property
    @abstractmethod
    def wiring(self) -> Wiring:
        """The calls of the layers."""

    @property
    @abstractmethod
    def _as_called(self) -> Wiring:
        """The same, as a batch goes through the net."""

    @abstractmethod
    def _batches(self, arrays: Sequence[Array]) -> None:
        """Refuse what is no batch of inputs; build the net for them if it is not."""

    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "adam",
        loss: Any = "sparse_categorical_crossentropy",
        metrics: Any = (),
        loss_weights: Any = None,
        *,
        precision: str | None = None,
        **others: Any,
    ) -> None:
        """Choose how to train.

        Of a net of several outputs, `loss`, `metrics` and `loss_weights` are lists with an entry an output, or
        dictionaries by `output_names`; a loss alone is that of all outputs, None that of an output that is not trained.

        Parameters
        ----------
        optimizer : str or Optimizer
            'sgd', 'adam', 'adamw' (with Keras' defaults) or an object of `fastconv.optimizers`.
        loss : str, Loss, list or dict
            A name in Keras' words or an object of `fastconv.losses`.
        metrics : sequence of str or callable, list or dict
            'accuracy', or functions of (outputs, targets).
        loss_weights : list or dict of float, optional
            Factors of the losses in their sum, which is the loss; 1 if not given.
        precision : {'float32', 'bfloat16'}, optional
            'bfloat16' rounds the operands of convolutions and dense layers to it, forward and backward, in steps and in
            `predict`; sums, weights and the optimiser stay float32.
        **others : Any
            Refused: what else Keras' compile takes is Keras' own.

        Raises
        ------
        ConvError, ConvTypeError
            For an unknown name, or a loss that takes logits on a model that ends in a softmax.
        """
        refuse_others("compile", others)
        chosen = optimizers.optimizer(optimizer)
        objective = Objective(self.output_names, loss, metrics, loss_weights)
        objective.require_no_softmax(self._as_called, self.name)
        halves = checked_halves(None, precision)
        inner = list(all_layers(self._model()))
        for layer in inner:
            require_single(halves, layer.dtype)
        for layer in inner:
            layer.precision = halves.packed or None
        self._model().precision = halves.packed or None
        self.optimizer, self._objective = chosen, objective
        several = len(self.output_names) > 1
        self.loss = objective.losses if several else objective.losses[0]
        self.metrics = objective.metrics if several else objective.metrics[0]

    def _compiled(self) -> tuple[optimizers.Optimizer, Objective]:
        if not self.wiring.calls:
            raise ConvError(f"{self.name} has no layers: there is nothing to train or to measure.")
        if self.optimizer is None or self._objective is None:
            raise ConvError(f"{self.name} is not compiled: call compile(optimizer, loss) first.")
        return self.optimizer, self._objective

    def _model(self) -> Layer:
        return cast(Layer, self)

    # ---- looking at data ----------------------------------------------------------------------------------------

    def _inputs(self, x: Any) -> list[Array]:
        """The inputs as batches of the net, which is built for them."""
        given = listed("x", bare(x, axes=self._axes()), self.input_names, "input")
        arrays = named_arrays(self.input_names, given)
        for array in arrays:
            if array.ndim == 0 or len(array) == 0:
                raise ConvError(f"x holds no samples to learn from (shape {array.shape}).")
        self._batches(arrays)
        return arrays

    def _axes(self) -> int | None:
        """Axes of a batch of the one input, where that is known."""
        return None

    def _checked(self, x: Any, y: Any) -> Batch:
        """Inputs and targets of the same number, in range."""
        _, objective = self._compiled()
        inputs = self._inputs(x)
        shapes = [tuple(shape) for shape in self.wiring.ends([array.shape[1:] for array in inputs])]
        if y is None:
            raise ConvTypeError("y must be given beside an x of arrays, or x must yield pairs (x, y).")
        given = listed("y", bare(y, count=len(inputs[0])), self.output_names, "output")
        for name, target, needed in zip(self.output_names, given, objective.targets, strict=True):
            if target is None and needed:
                raise ConvTypeError(f"y of the output {name!r} is None, but it has a loss or a metric.")
        targets = objective.check(given, shapes)
        same_length(len(inputs[0]), targets)
        return inputs, targets

    def _own_type(self, inputs: Sequence[Array]) -> list[Array]:
        dtype = self._model().dtype
        return [x if x.dtype == dtype else x.astype(dtype) for x in inputs]

    # ---- one batch ----------------------------------------------------------------------------------------------

    def train_on_batch(self, x: Any, y: Any) -> list[float]:
        """Make one step of the optimiser.

        Parameters
        ----------
        x : array_like, list or dict
            Inputs (N, H, W, C), (N, C, H, W) or (N, F); of several inputs a list, or a dictionary by `input_names`.
        y : array_like, list or dict
            Targets of as many samples, as the losses take them.

        Returns
        -------
        list of float
            The loss and the metrics, from before the step.

        Raises
        ------
        ConvError
            For labels out of range or a loss that is not finite; the weights are then as before.
        """
        return self._step(*self._checked(x, y))

    def _step(self, inputs: Sequence[Array], targets: Sequence[Any]) -> list[float]:
        optimizer, objective = self._compiled()
        model, tape, reached = self._model(), None, {}
        statistics = [(p, p.array.copy()) for p in model.parameters() if not p.trainable and p.allocated]
        try:
            with memory.reusing(self._arena):
                taken = self._own_type(inputs)
                outputs, tape = run(objective.cut(self._as_called), taken, True)
                measured, grads = objective(outputs, targets)
                if not np.isfinite(measured[0]):
                    raise ConvError(self._why_not_finite(taken, measured[0]))
                back(tape, grads, wanted=False)
                reached = tape.reached
        except BaseException:
            for parameter, before in statistics:
                parameter.assign(before)
            raise
        finally:
            if tape is not None:
                tape.release()
            model.release()
        optimizer.apply([p for p in model.trained_parameters() if id(p) in reached])  # others' gradients are older
        return measured

    def _why_not_finite(self, inputs: Sequence[Array], value: float) -> str:
        """Which layer first made a value that is not finite."""
        message = f"the loss is {value}: "
        if not all(np.isfinite(x).all() for x in inputs):
            return message + "the input x itself holds NaN or infinity; the weights were left as they were."
        values: dict[int, Any] = dict(enumerate(inputs))
        for call in self.wiring.calls:
            result: Any = call.layer.forward(call.taken(values), call.training is not False)
            for number, made in call.made(result):
                values[number] = made
                if not np.isfinite(made).all():
                    return message + (
                        f"the first output that is not finite is that of layer {call.layer.name}; the weights were "
                        "left as they were. Lower the learning rate, or scale the inputs."
                    )
        return message + "the outputs are finite but too large; the weights were left as they were."

    def test_on_batch(self, x: ArrayLike, y: ArrayLike) -> list[float]:
        """Measure one batch; nothing is changed.

        Parameters
        ----------
        x : array_like, list or dict
            Inputs, as `train_on_batch` takes them.
        y : array_like, list or dict
            Targets of as many samples, as the losses take them.

        Returns
        -------
        list of float
            The loss and the metrics.
        """
        return self._measure(*self._checked(x, y))

    def _measure(self, inputs: Sequence[Array], targets: Sequence[Any]) -> list[float]:
        _, objective = self._compiled()
        outputs, tape = run(objective.cut(self._as_called), self._own_type(inputs), False)
        tape.release()
        self._model().release()
        return objective(outputs, targets)[0]


