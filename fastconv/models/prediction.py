"""`predict`: outputs of any number of samples by the prepared net."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .._core.arrays import as_array, is_ndarray, plain
from .._core.progress import Progress
from ..errors import ConvError, ConvTypeError
from ..layers.base import Array, Sample, positive
from .called import Callbacks
from .data import bare, groups_of, listed, named_arrays
from .inference import InferencePlan
from .steps import Steps, refuse_others
from .training import _verbosity


class Predicting(Steps):
    """The method `predict` of a net."""

    def predict(
        self, x: Any, batch_size: int = 32, verbose: int | str = 0, *, callbacks: object = (), **others: Any
    ) -> Any:
        """Compute the outputs by the prepared net (see `compile_inference`).

        Parameters
        ----------
        x : array_like, list, dict or iterable
            A batch as an array, or a list or generator of single samples (or of batches, where the net says how many
            axes a sample has): then a bar shows progress (unless `verbose` is 0). Of several inputs a list of arrays,
            or a dictionary by `input_names`.
        batch_size : int
            Samples at a time.
        verbose : {0, 1, 2}
            Nothing, a bar, or a line an epoch.
        callbacks : object or sequence of them
            Objects with methods of Keras' callbacks, such as `on_predict_batch_end(batch, logs)`.
        **others : Any
            Refused: what else Keras' predict takes is Keras' own.

        Returns
        -------
        ndarray or list of ndarray
            Of several outputs a list with an array each; of samples of different sizes a list with one each.
        """
        refuse_others("predict", others)
        size, shown = positive("batch_size", batch_size), _verbosity(verbose) > 0
        called = _Batches(callbacks, self, verbose=int(shown))
        called.call("on_predict_begin", {})
        given = listed("x", x, self.input_names, "input")
        if len(given) == 1:
            made = self._predict_one(bare(given[0], axes=self._axes()), size, shown, called)
        else:
            arrays = named_arrays(self.input_names, given)
            with Progress(len(arrays[0]), "predict", shown) as progress:
                made = self._predict_arrays(arrays, size, progress, called)
        called.call("on_predict_end", {})
        return made[0] if len(made) == 1 else made

    def _predict_one(self, x: Any, size: int, shown: bool, called: _Batches) -> list[Any]:
        """The outputs for an array, or for samples one after the other, of a net of one input."""
        if is_ndarray(x):
            x = plain(x)
            with Progress(len(x) if x.ndim else None, "predict", shown) as progress:
                return self._predict_arrays([x], size, progress, called)
        if isinstance(x, (str, bytes)) or not isinstance(x, Iterable):
            raise ConvTypeError(f"x must be an array or an iterable of samples, but got a {type(x).__name__}.")
        axes = self._axes()
        with Progress(len(x) if isinstance(x, (list, tuple)) else None, "predict", shown) as progress:
            parts = [
                self._predict_arrays([group], size, progress, called)
                for group in groups_of(x, size, None if axes is None else axes - 1)
            ]
        if not parts:
            raise ConvError("x holds no samples to predict.")
        made = []
        for own in zip(*parts, strict=True):
            alike = len({part.shape[1:] for part in own}) == 1
            made.append(np.concatenate(own) if alike else [sample for part in own for sample in part])
        return made

    def _predict_arrays(
        self, arrays: Sequence[Array], size: int, progress: Progress, called: _Batches
    ) -> list[Array]:
        inputs = [as_array("x", array) for array in arrays]
        self._batches(inputs)
        samples = [Sample(array.shape[1:]) for array in inputs]
        plan = self.compile_inference(samples, precision=self.precision)
        count = len(inputs[0])
        if count <= size:
            results = called.run(plan, inputs)
            progress.step(count)
            return results
        dtype = self._model().dtype
        whole = [np.empty((count, *shape), dtype) for shape in plan.output_shapes]
        for begin in range(0, count, size):
            parts = called.run(plan, [array[begin : begin + size] for array in inputs])
            for result, part in zip(whole, parts, strict=True):
                result[begin : begin + size] = part
            progress.step(len(parts[0]))
        return whole

    @abstractmethod
    def compile_inference(self, input_shape: Any = None, *, precision: str | None = None) -> InferencePlan:
        """Prepare the model for samples of this shape.

        Parameters
        ----------
        input_shape : sequence of int or None, optional
            Of the samples, with or without a batch axis; that of the build if not given.
        precision : str, optional
            What operands are rounded to.

        Returns
        -------
        InferencePlan
            What `predict` runs.
        """


class _Batches(Callbacks):
    """The callbacks of one `predict`, whose batches are counted from its beginning."""

    done = 0

    def run(self, plan: InferencePlan, arrays: list[Array]) -> list[Array]:
        """The outputs for a batch."""
        self.call("on_predict_batch_begin", self.done, {})
        made = plan.run(_of(arrays))
        self.call("on_predict_batch_end", self.done, {"outputs": made})
        self.done += 1
        return made if isinstance(made, list) else [made]


def _of(arrays: list[Array]) -> Any:
    return arrays[0] if len(arrays) == 1 else arrays
