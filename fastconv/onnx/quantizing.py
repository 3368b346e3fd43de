"""A model of floats from a file, quantised and written again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._core.arrays import Array
from ..graph.calibration import Feeds, Watched, checked_calibration, checked_method, unwatched
from ..graph.errors import OnnxError, onnx_package
from ..graph.halves import hold_in_float32
from ..graph.quantised import Calibrated, QuantisationReport, check_labels
from ..graph.tensors import numpy_type
from .loading import load
from .writing import in_opset, opset_for, written


class Quantised:
    """A model that becomes one with QuantizeLinear and DequantizeLinear around its operators.

    Parameters
    ----------
    path : path_like
        The model, of floats.

    Raises
    ------
    OnnxError
        For a model that is damaged, that takes no or several inputs, or that is quantised already.
    """

    def __init__(self, path: Any) -> None:
        onnx = onnx_package()
        if not Path(path).is_file():
            raise OnnxError(f"{str(path)!r} is no file; pass the path of an .onnx file.")
        load(path)  # says what is wrong with it
        self._source, self._opset = in_opset(onnx.load(path))
        if any(node.op_type in ("DequantizeLinear", "QLinearConv") for node in self._source.graph.node):
            raise OnnxError(f"{str(path)!r} is quantised already.")
        graph = load(self._source)
        if len(graph.inputs) != 1 or not graph.inputs[0].element_type:
            raise OnnxError(f"{str(path)!r} has {len(graph.inputs)} inputs; models with one tensor are quantised.")
        self._graph = graph
        self._calibrated: Calibrated | None = None
        self._feeds: Feeds = {}

    @property
    def input_shape(self) -> Any:
        """The shape of the input, as the file declares it."""
        return self._graph.inputs[0].shape

    @property
    def float_bytes(self) -> int:
        """The bytes of the model with its weights, wherever these lie."""
        return int(self._source.ByteSize())

    def calibrate(
        self, samples: Array, method: str, threads: int | None = None, watched: Watched = unwatched,
        labels: Array | None = None,
    ) -> None:  # fmt: skip
        """Take the ranges of all values from samples of the input; `watched` sees the runs. Classes that a report is to
        be of are refused before that if they are none of the model's."""
        graph, (value,) = self._graph, self._graph.inputs
        kinds = {value.name: numpy_type(value.element_type)}
        self._feeds = checked_calibration({value.name: samples}, {value.name: value.shape}, kinds)
        hold_in_float32(graph)
        if labels is not None:
            check_labels(graph, self._feeds, labels, threads)
        self._calibrated = Calibrated(graph, self._feeds, checked_method(method), threads, watched=watched)

    def model(self) -> Any:
        """The quantised model, an `onnx.ModelProto`."""
        graph = self._of().standard()
        if not any(node.op_type == "QuantizeLinear" for node in graph.nodes):
            raise OnnxError(
                "the model has nothing to quantise: no convolution or product of float32 with constant weights."
            )
        onnx, opset = onnx_package(), opset_for(graph, self._opset)
        made = onnx.shape_inference.infer_shapes(written(graph, opset))  # outputs of a file may lack theirs
        try:
            onnx.checker.check_model(made)
        except onnx.checker.ValidationError as error:
            raise OnnxError(
                f"the quantised model would need operator set {opset}, of which its other operators are not ({error}); "
                "convert the model with onnx.version_converter first."
            ) from error
        return made

    def write(self, path: Any) -> int:
        """Write it into a file; the bytes that it has."""
        content: bytes = self.model().SerializeToString()
        return Path(path).write_bytes(content)

    def report(self, labels: Array | None = None) -> QuantisationReport:
        """How far its values are from the floats, over the samples of the calibration; `labels` are their classes."""
        return self._of().report(self._feeds, labels)

    def _of(self) -> Calibrated:
        if self._calibrated is None:
            raise OnnxError("calibrate the model first.")
        return self._calibrated
