"""What every net is: layers wired together that train, predict, are summarised and saved, and are layers themselves.

`Sequential` and `Model` say how their layers are wired (`wiring`) and which shapes they take; all else is here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from .. import losses
from .._core.arrays import as_array
from .._core.rounding import Halves, checked_halves
from .._core.words import Shape, integer
from ..errors import ConvError
from ..graph.calibration import checked_int8
from ..graph.optimise import INTEGERS
from ..layers.base import (
    Array,
    Layer,
    Parameter,
    Sample,
    Window,
    all_layers,
    overridden,
    prefix_of,
    said_anew,
)
from ..layers.core import Dropout
from ..layers.memory import Arena
from ..layers.symbolic import Symbolic, input_tensor
from . import storage
from .inference import InferencePlan
from .objective import _cut
from .prediction import Predicting
from .quantised import QuantisedInferencePlan
from .summary import Table, table, windows
from .training import Trainable
from .wiring import Call, Tape, Wiring, back, run

PLANS = 4  # input shapes that a model keeps prepared: each holds packed weights


class Net(Trainable, Predicting, Layer):
    """The common part of `Sequential` and `Model`.

    Parameters
    ----------
    name : str, optional
        Shows in summaries and errors.
    seed : int, optional
        Makes the weights, and the draws of dropout, the same every time.
    **options : Any
        Also trainable, dtype and data_format: see `Layer`.
    """

    reads_images = False
    is_net: ClassVar[bool] = True
    _elsewhere: ClassVar[dict[str, Any]] = {**Layer._elsewhere, "_tape": None}
    layers: list[Layer]

    def __init__(self, *, name: str | None = None, seed: int | None = None, **options: Any) -> None:
        super().__init__(name=name, **options)
        self.seed = None if seed is None else integer("seed", seed)
        self._plans: dict[tuple[tuple[Shape, ...], Halves], InferencePlan] = {}
        self._arena = Arena()
        self._tape: Tape | None = None
        self._logits_wiring: tuple[Wiring, Wiring] | None = None
        self._whole: tuple[Wiring, Wiring] | None = None
        self._ends: tuple[list[Symbolic], list[Symbolic]] | None = None  # what it was made of, or would be

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take: layers, weights, the optimiser's state; plans are made anew."""
        anew = dict.fromkeys(("_logits_wiring", "_whole", "_ends"))
        return {**super().__getstate__(), "_plans": {}, "_arena": Arena(), **anew}

    def _described(self) -> list[str]:
        count = len(self.layers)
        return [f"{count} layer{'' if count == 1 else 's'}", *super()._described()]

    def sublayers(self) -> Sequence[Layer]:
        return self.layers

    def get_layer(self, name: str) -> Layer:
        """Find a layer at any depth.

        Parameters
        ----------
        name : str
            The layer's name.

        Returns
        -------
        Layer
            The first of this name.

        Raises
        ------
        ConvError
            If there is none.
        """
        for layer in all_layers(self):
            if layer.name == name:
                return layer
        raise ConvError(f"{self.name} has no layer {name!r}; it has {', '.join(layer.name for layer in self.layers)}.")

    # ---- symbolic tensors ---------------------------------------------------------------------------------------

    def _input_sizes(self) -> list[tuple[int | None, ...]]:
        """The sizes of samples, one an input, None where any may come."""
        raise NotImplementedError

    @property
    def inputs(self) -> list[Symbolic]:
        """The symbolic tensors at the beginning."""
        return self._tensors()[0]

    @property
    def outputs(self) -> list[Symbolic]:
        """The symbolic tensors at the end."""
        return self._tensors()[1]

    @property
    def input(self) -> Any:
        """The symbolic tensor at the beginning, or the list."""
        return self.inputs if len(self.inputs) > 1 else self.inputs[0]

    @property
    def output(self) -> Any:
        """The symbolic tensor at the end, or the list."""
        return self.outputs if len(self.outputs) > 1 else self.outputs[0]

    def _tensors(self) -> tuple[list[Symbolic], list[Symbolic]]:
        """Those that made it; of a chain, and of a copy, new ones, by calling its layers."""
        if self._ends is None:
            begin = [
                input_tensor(sizes, self.dtype.name, name)
                for sizes, name in zip(self._input_sizes(), self.input_names, strict=True)
            ]
            values: dict[int, Any] = dict(enumerate(begin))
            for call in self.wiring.calls:
                values.update(call.made(call.layer(call.taken(values), call.training)))
            self._ends = begin, [values[number] for number in self.wiring.outputs]
        return self._ends

    # ---- shapes and weights -------------------------------------------------------------------------------------

    def _samples(self, input_shape: Any) -> list[Shape]:
        """The shapes of samples, one an input, of what `build` or `summary` was given."""
        raise NotImplementedError

    def _build_samples(self, samples: Sequence[Shape]) -> None:
        for call, before, _ in self.wiring.walk(samples):
            call.layer.build(before)
        self._seed()

    def _seed(self) -> None:
        """Give every parameter, and every dropout, draws of its own."""
        root = int(np.random.SeedSequence().generate_state(1)[0]) if self.seed is None else self.seed
        for i, parameter in enumerate(self.parameters()):
            parameter.seed = (root, i)
        if self.seed is not None:
            for i, layer in enumerate(all_layers(self)):
                if isinstance(layer, Dropout) and not layer.seeded:
                    layer.random = np.random.default_rng((self.seed, i, 1))

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), each parameter once however often its layer is called."""
        seen: dict[int, Parameter] = {}
        paths: set[str] = set()
        for layer in self.layers:
            for path, parameter in layer.named_parameters(prefix_of(layer, prefix)):
                if id(parameter) in seen:
                    continue
                seen[id(parameter)] = parameter
                own, count = path, 0
                while own in paths:  # two layers that other nets gave one name
                    count += 1
                    own = f"{path}_{count}"
                paths.add(own)
                yield own, parameter

    def trained_parameters(self) -> list[Parameter]:
        return list({id(parameter): parameter for parameter in super().trained_parameters()}.values())

    def macs(self, input_shape: Any) -> int:
        return sum(call.layer.macs(before) for call, before, _ in self.wiring.walk(self._samples(input_shape)))

    def window(self, input_shape: Any) -> Window:
        return windows(self.wiring, self._samples(input_shape))[self.wiring.outputs[0]]

    # ---- what it is ---------------------------------------------------------------------------------------------

    def _known_samples(self, input_shape: Any) -> list[Shape]:
        """Those that were given, for which the net is built, or those of the build."""
        if input_shape is not None:
            samples = self._samples(input_shape)
            shapes: Any = [Sample(sample) for sample in samples]
            self.build(shapes if self.merges else shapes[0])
            return samples
        self._require_built()
        return self._samples(self._built())

    def _built(self) -> Any:
        """The shape of the build, or the list of them."""
        shape: Any = self.built_shape
        return [Sample(own) for own in shape] if self.merges else Sample(shape)

    def table(self, input_shape: Any = None) -> Table:
        """What `summary` prints, as numbers; nothing is allocated.

        Parameters
        ----------
        input_shape : sequence of int or None, optional
            Of the samples, with or without a batch axis; a list of them where there are several inputs; that of the
            build if not given.

        Returns
        -------
        Table
            Rows, one a layer, and totals: `parameters`, `macs`, `forward_bytes`, `training_bytes`.
        """
        return table(self, self._known_samples(input_shape))

    def summary(self, input_shape: Any = None, print_fn: Callable[[str], Any] = print) -> None:
        """Print a table of the net; nothing is allocated.

        Output shape, parameters, multiply-adds, bytes of activations forward and in training, receptive field and
        stride of every layer, which layers it takes its inputs from where that is not the one above, and the totals.

        Parameters
        ----------
        input_shape : sequence of int or None, optional
            Of the samples, with or without a batch axis; a list of them where there are several inputs; that of the
            build if not given.
        print_fn : callable
            Receives the text.
        """
        print_fn(str(self.table(input_shape)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole net to a file: architecture, weights, running statistics, the optimiser's state.

        `fastconv.load_model` makes the net again, `load` reads the weights alone into one that there is.

        Parameters
        ----------
        path : path_like
            Ends in .npz or .safetensors.
        """
        self._require_built()
        storage.save(self, path)

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write the weights and running statistics alone, for `load`.

        Parameters
        ----------
        path : path_like
            Ends in .npz or .safetensors.
        """
        self._require_built()
        storage.save(self, path, weights_only=True)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read weights that `save` wrote.

        Parameters
        ----------
        path : path_like
            Ends in .npz or .safetensors.

        Raises
        ------
        ConvError
            Says what differs from this model, which is then unchanged.
        """
        self._require_built()
        storage.load(self, path)

    # ---- running ------------------------------------------------------------------------------------------------

    def _taken(self, x: Any) -> list[Array]:
        """The inputs as batches of the net's element type; the net is built for them."""
        raise NotImplementedError

    def forward(self, x: Any, training: bool = False) -> Any:
        outputs, self._tape = run(self.wiring, self._taken(x), training)
        return outputs[0] if len(outputs) == 1 else outputs

    def forward_logits(self, x: Any, training: bool = False) -> Any:
        """`forward` without the softmax that the net ends in; the next `backward` leaves it out too."""
        wiring = self.wiring
        if self._logits_wiring is None or self._logits_wiring[0] is not wiring:
            self._logits_wiring = wiring, _cut(wiring, [losses.SoftmaxCrossEntropy()])[0]
        outputs, self._tape = run(self._logits_wiring[1], self._taken(x), training)
        return outputs[0]

    @property
    def _as_called(self) -> Wiring:
        """How `fit` and `evaluate` go through the net: along its wiring or, where its class says itself what it
        computes or how gradients come back, by a call of the net."""
        wiring = self.wiring
        if not overridden(self) and not said_anew(self, "backward", "_back"):
            return wiring
        if self._whole is None or self._whole[0] is not wiring:
            ends = range(wiring.inputs, wiring.inputs + len(wiring.outputs))
            call = Call(self, tuple(range(wiring.inputs)), tuple(ends), several=self.merges)
            self._whole = wiring, Wiring([call], wiring.inputs, tuple(ends))
        return self._whole[1]

    def _back(self, grads: Sequence[Array | None], wanted: bool) -> list[Array | None]:
        """`backward`, of a gradient an output, as `wiring.back` takes and gives them."""
        tape = self._tape
        if tape is None:
            raise ConvError(f"{self.name}: backward needs a forward call before it.")
        if len(grads) != len(tape.wiring.outputs):
            raise ConvError(
                f"{self.name}: grad must be a list of {len(tape.wiring.outputs)}, one an output, but got {len(grads)}."
            )
        arrays = [None if grad is None else as_array("grad", grad) for grad in grads]
        for value, array in zip(tape.wiring.outputs, arrays, strict=True):
            if array is not None and array.shape != tape.shapes[value][0]:
                raise ConvError(
                    f"{self.name}: grad must have the shape {tape.shapes[value][0]} of the last output, but got "
                    f"{array.shape}."
                )
        return back(tape, arrays, wanted)

    @property
    def _reached(self) -> dict[int, Parameter]:
        """The parameters that the last `backward` gave a gradient, by their identity."""
        return {} if self._tape is None else self._tape.reached

    def backward(self, grad: ArrayLike) -> Any:
        tape, grads = self._tape, self._each(grad)
        found = [
            tape.zeros(number) if tape is not None and own is None else own
            for number, own in enumerate(self._back(grads, True))
        ]
        return found if self.merges else found[0]

    def backward_weights(self, grad: ArrayLike) -> None:
        self._back(self._each(grad), False)

    def _each(self, grad: Any) -> list[Any]:
        """One gradient an output."""
        several = self._tape is not None and len(self._tape.wiring.outputs) > 1
        return list(grad) if several and isinstance(grad, (list, tuple)) else [grad]

    def release(self) -> None:
        if self._tape is not None:
            self._tape.release()
        self._tape = None
        super().release()

    def compile_inference(
        self, input_shape: Any = None, *, weights_dtype: str | None = None, precision: str | None = None,
        calibration: Any = None, calibration_method: str = "percentile", quantized: str = INTEGERS,
    ) -> InferencePlan:  # fmt: skip
        """Prepare the net for samples of this shape, as `predict` uses it.

        Normalisation is folded into convolutions, activations and residual sums are fused, weights packed, buffers
        shared.

        Parameters
        ----------
        input_shape : sequence of int or None, optional
            Of the samples, with or without a batch axis; a list of them where there are several inputs; that of the
            build if not given.
        weights_dtype : {'float32', 'float16', 'bfloat16'}, optional
            Weights of 16 bits are rounded to the nearest and held so, and multiplied in float32.
        precision : {'float32', 'bfloat16', 'int8'}, optional
            'bfloat16' rounds the inputs of convolutions and dense layers, and their weights, to it; sums are float32.
            'int8' computes in 8-bit integers: weights symmetric a channel, activations affine a tensor.
        calibration : array_like, optional
            Samples as the net will see them, some dozens: what the ranges of activations are taken from; a list or a
            dictionary where there are several inputs. For 'int8'.
        calibration_method : {'percentile', 'minmax'}
            The range of an activation less its outermost hundredth of a percent at either end, or its whole range.
        quantized : {'integers', 'exact', 'winograd'}
            How 'int8' computes: on bytes; step by step in float32, as the bytes' definition has it; or on bytes with
            Winograd's tiles in wide 3x3 convolutions at stride 1: faster, with 1.3 to 1.5 times the error.

        Returns
        -------
        InferencePlan
            Kept until a weight changes; ``print(plan.explain())`` tells what was fused and where values live. That of
            'int8' is a new one each time, and its `report` tells the error layer by layer.

        Raises
        ------
        ConvError
            For a calibration that is missing, empty, constant, not finite or of another shape.
        """
        if checked_int8(precision, calibration, weights_dtype):
            known = self._known_samples(input_shape)
            return QuantisedInferencePlan(self, known, calibration, calibration_method, quantized)
        halves = checked_halves(weights_dtype, precision)
        samples = None if input_shape is None else tuple(self._samples(input_shape))
        if samples is None and self.built_shape is not None:
            samples = tuple(self._samples(self._built()))
        plan = None if samples is None else self._plans.get((samples, halves))
        if samples is None or plan is None or not plan.current:
            samples = tuple(self._known_samples(input_shape))
            if len(self._plans) >= PLANS:
                self._plans.pop(next(iter(self._plans)))
            plan = self._plans[samples, halves] = InferencePlan(self, list(samples), halves)
        return plan
