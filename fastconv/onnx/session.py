"""`InferenceSession`: a model loaded, optimised and run, with ONNX Runtime's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._core.arrays import Array
from .._core.rounding import checked_halves
from ..errors import ConvTypeError
from ..graph.calibration import checked_calibration, checked_int8, checked_labels, checked_method
from ..graph.errors import OnnxError
from ..graph.graph import Graph, ValueInfo
from ..graph.half_weights import hold_halves
from ..graph.halves import hold_in_float32
from ..graph.memory import LARGEST_VALUE
from ..graph.optimise import INTEGERS, checked_computing, optimise
from ..graph.prepared import KEPT_SHAPES, Prepared
from ..graph.quantised import Calibrated, QuantisationReport
from ..graph.summary import Profile, table
from ..graph.tensors import STRING, numpy_type
from .loading import load


class InferenceSession:
    """A model ready to run: `run(output_names, input_feed)`, with ONNX Runtime's words.

    Runs from several threads wait for each other.

    Parameters
    ----------
    path_or_bytes : path_like, bytes or onnx.ModelProto
        The model.
    num_threads : int, optional
        Threads of convolutions and poolings, in place of `fastconv.get_num_threads()`.
    keep_shapes : int
        Sets of input shapes that stay prepared.
    max_value_bytes : int
        A value above this size is refused before it is allocated.
    optimise : bool
        False runs the graph as it stands.
    quantized : {'integers', 'exact', 'winograd'}
        How 8-bit operators of a quantised model compute: on bytes, where a result may be the integer beside that of the
        graph step by step; or step by step, in float32. 'winograd' is 'integers' but for wide 3x3 convolutions at
        stride 1, which take 16 products for 36 and lose two bits of the inputs on the way: 1.3 to 1.5 times the error
        of quantising.
    precision : {'float32', 'bfloat16', 'int8'}, optional
        'bfloat16' rounds the inputs and weights of convolutions and matrix products to it, and sums in float32. 'int8'
        quantises a float model: weights symmetric a channel, activations affine a tensor.
    calibration : array_like or dict of str to array_like, optional
        Inputs as the model will see them, some dozens, by name if there are several: what the ranges of activations are
        taken from. For 'int8'.
    calibration_method : {'percentile', 'minmax'}
        The range of an activation less its outermost hundredth of a percent at either end, or its whole range.
    providers : sequence of str, optional
        Accepted and ignored, for code written for ONNX Runtime.
    weights_dtype : {'float32', 'float16', 'bfloat16'}, optional
        Weights of convolutions and matrix products that stay the same are rounded to 16 bits and held so.

    Raises
    ------
    OnnxError
        For a model that is damaged.
    UnsupportedOperator
        For operators that fastconv does not have.
    """

    def __init__(
        self,
        path_or_bytes: Any,
        *,
        num_threads: int | None = None,
        keep_shapes: int = KEPT_SHAPES,
        max_value_bytes: int = LARGEST_VALUE,
        optimise: bool = True,
        quantized: str = INTEGERS,
        precision: str | None = None,
        calibration: Any = None,
        calibration_method: str = "percentile",
        providers: Sequence[str] | None = None,
        weights_dtype: str | None = None,
    ) -> None:
        halves = checked_halves(weights_dtype, None if precision == "int8" else precision)
        if num_threads is not None and (not isinstance(num_threads, int) or num_threads < 1):
            raise OnnxError(f"num_threads must be a positive integer or None, but got {num_threads!r}.")
        if not isinstance(keep_shapes, int) or keep_shapes < 1:
            raise OnnxError(f"keep_shapes must be a positive integer, but got {keep_shapes!r}.")
        checked_computing(quantized, OnnxError)
        int8 = checked_int8(precision, calibration, weights_dtype)
        graph = load(path_or_bytes, own=not int8)
        self._inputs, self._outputs = list(graph.inputs), list(graph.outputs)
        self._read_nodes = len(graph.nodes)
        hold_in_float32(graph)
        self._calibrated: Calibrated | None = None
        if int8:
            feeds = checked_calibration(calibration, *self._declared())
            self._calibrated = Calibrated(
                graph, feeds, checked_method(calibration_method), num_threads, limit=max_value_bytes,
                computing=quantized if optimise else None,
            )  # fmt: skip
            graph = self._calibrated.graph()
        else:
            graph = _optimised(graph, max_value_bytes, quantized) if optimise else graph
            hold_halves(graph, halves)
        self._prepared = Prepared(graph, num_threads, keep_shapes, max_value_bytes, self._read_nodes)

    def _declared(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The shapes and the element types of the inputs by name."""
        if any(not value.element_type or value.element_type == STRING for value in self._inputs):
            raise OnnxError("precision='int8' takes models whose inputs are tensors of numbers.")
        shapes = {value.name: value.shape for value in self._inputs}
        return shapes, {value.name: numpy_type(value.element_type) for value in self._inputs}

    @property
    def _graph(self) -> Graph:
        return self._prepared.graph

    def __repr__(self) -> str:
        def told(values: list[ValueInfo]) -> str:
            return ", ".join(f"{value.name} {value.shape} {value.type}" for value in values) or "nothing"

        return f"<InferenceSession {told(self._inputs)} -> {told(self._outputs)}, {len(self._graph.nodes)} nodes>"

    def get_inputs(self) -> list[ValueInfo]:
        """What must be fed.

        Returns
        -------
        list of ValueInfo
            Objects with `name`, `shape` and `type`.
        """
        return list(self._inputs)

    def get_outputs(self) -> list[ValueInfo]:
        """What can be asked for.

        Returns
        -------
        list of ValueInfo
            Objects with `name`, `shape` and `type`.
        """
        return list(self._outputs)

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Array]:
        """Run the model.

        Parameters
        ----------
        output_names : sequence of str or None
            The outputs that are wanted; None for all.
        input_feed : dict of str to array_like
            Arrays by input name, of the declared types.
        run_options : object
            Accepted and ignored.

        Returns
        -------
        list of ndarray
            In the order of the names; the caller's own.

        Raises
        ------
        OnnxError
            For inputs that are missing, unknown, or of another shape or type.
        """
        known = [value.name for value in self._outputs]
        wanted = known if output_names is None else list(output_names)
        for name in wanted:
            if name not in known:
                raise OnnxError(f"there is no output {name!r}; the model has {', '.join(sorted(known))}.")
        found = self._prepared.straight(input_feed)
        if found is None:
            found = self._prepared.run(self._checked(input_feed))
        return [found[name] for name in wanted]

    def explain(self) -> str:
        """A table of the graph after optimisation.

        Returns
        -------
        str
            What each step stands for, how it is done, and shapes once run.
        """
        return table(self.describe())

    def describe(self) -> dict[str, Any]:
        """What `explain` shows, for programs.

        Returns
        -------
        dict
            The steps, the number of nodes read, and bytes.
        """
        return self._prepared.describe()

    summary = explain

    def profile(self, input_feed: Mapping[str, Any], runs: int = 10) -> Profile:
        """Where the time goes: the mean time of every step, after a run that prepares.

        Parameters
        ----------
        input_feed : mapping of str to array_like
            The inputs, as for `run`.
        runs : int, optional
            Over how many runs the mean is taken.

        Returns
        -------
        Profile
            Times in seconds; print it for a table.

        Raises
        ------
        OnnxError
            If `runs` is no positive integer, or an input does not fit.
        """
        if not isinstance(runs, int) or runs < 1:
            raise OnnxError(f"runs must be a positive integer, but got {runs!r}.")
        return self._prepared.profile(self._checked(input_feed), runs)

    def report(self, input_feed: Mapping[str, Any] | None = None, labels: Any = None) -> QuantisationReport:
        """How far the values of a session of 'int8' are from the floats, layer by layer.

        Parameters
        ----------
        input_feed : mapping of str to array_like, optional
            The inputs, as for `run`; some of the calibration if not given.
        labels : array_like, optional
            The class of each sample, as an integer: the report then has the accuracy of both nets.

        Returns
        -------
        QuantisationReport
            Print it for a table.

        Raises
        ------
        OnnxError
            If the session is not of 'int8', or an input does not fit.
        """
        if self._calibrated is None:
            raise OnnxError("report compares a session of precision='int8' with floats; this one is of the model's.")
        if input_feed is None:
            if labels is not None:
                raise OnnxError("labels belong to samples; pass input_feed too.")
            return self._calibrated.report()
        feeds = self._checked(input_feed)
        return self._calibrated.report(feeds, checked_labels(labels, len(next(iter(feeds.values())))))

    def _checked(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """The inputs in the model's order, or what is wrong with them."""
        if not isinstance(feeds, Mapping):
            raise ConvTypeError(f"input_feed must be a dict of arrays by input name, but got a {type(feeds).__name__}.")
        names = dict.fromkeys(value.name for value in self._inputs)  # in their order
        missing = [name for name in names if name not in feeds]
        unknown = [str(name) for name in feeds if name not in names]
        if missing or unknown:
            raise OnnxError(
                f"the model takes {', '.join(names) or 'no inputs'}"
                + (f"; missing: {', '.join(missing)}" if missing else "")
                + (f"; unknown: {', '.join(unknown)}" if unknown else "")
                + "."
            )
        return {value.name: _checked_input(value, feeds[value.name]) for value in self._inputs}


def _checked_input(value: ValueInfo, given: Any) -> Any:
    """One input as an array of the declared type and shape."""
    if value.type in ("sequence", "optional"):  # what Identity passes on
        return list(given) if isinstance(given, (list, tuple)) else given
    if value.type in ("map", "sparse_tensor"):
        raise OnnxError(f"input {value.name!r} is a {value.type}; fastconv.onnx runs on tensors.")
    array = np.asarray(given)
    if value.element_type == STRING:
        array = array.astype(object)
    elif value.element_type:
        wanted = numpy_type(value.element_type)
        if array.dtype != wanted:
            raise OnnxError(
                f"input {value.name!r} must be {value.type}, that is NumPy's {wanted}, but got {array.dtype} of shape "
                f"{array.shape}; convert it with .astype({wanted.name!r})."
            )
        array = array.astype(wanted, copy=False)  # byte order
    declared = value.shape
    if declared is not None and (
        len(declared) != array.ndim
        or any(isinstance(size, int) and size != got for size, got in zip(declared, array.shape, strict=True))
    ):
        raise OnnxError(f"input {value.name!r} must have the shape {declared}, but got {list(array.shape)}.")
    return array


_optimised = optimise
