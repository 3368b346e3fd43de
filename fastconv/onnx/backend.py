"""fastconv in the form of `onnx.backend.base`: `prepare`, `run_model`, `run_node`, for tools and ONNX's own tests.

    import fastconv.onnx.backend as backend
    outputs = backend.run_model(model, [image])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..graph.errors import OnnxError, UnsupportedOperator, onnx_package
from ..graph.operators import LATEST_OPSET
from .loading import load
from .session import InferenceSession

onnx_package()
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.backend.base import Backend, BackendRep, namedtupledict  # noqa: E402


class FastconvRep(BackendRep):
    """A prepared model."""

    def __init__(self, session: InferenceSession) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, by position and by name, for one array, arrays in the model's order, or a dict of them."""
        names = [value.name for value in self.session.get_inputs()]
        if isinstance(inputs, Mapping):
            feeds = dict(inputs)
        else:
            given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
            if len(given) > len(names):
                raise OnnxError(f"the model takes {len(names)} inputs, but got {len(given)}.")
            feeds = dict(zip(names, given, strict=False))
        outputs = [value.name for value in self.session.get_outputs()]
        made = namedtupledict("Outputs", outputs)
        return made(*self.session.run(outputs, feeds))


class FastconvBackend(Backend):
    """The CPU backend."""

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether fastconv has every operator of the model."""
        try:
            load(model)
        except UnsupportedOperator:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> FastconvRep:
        """Load and optimise a ModelProto; options are those of `InferenceSession`."""
        if not cls.supports_device(device):
            raise OnnxError(f"fastconv runs on the CPU, not on {device!r}.")
        options = {key: value for key, value in kwargs.items() if key in ("num_threads", "keep_shapes", "optimise")}
        return FastconvRep(InferenceSession(model, **options))

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Prepare and run once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Sequence[Any] | None = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run one node on arrays in the order of its inputs."""
        names = list(dict.fromkeys(name for name in node.input if name))
        arrays = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        declared = [
            helper.make_tensor_value_info(name, numpy_helper.from_array(array).data_type, array.shape)
            for name, array in zip(names, arrays, strict=True)
        ]
        results = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in node.output if name]
        version = int(kwargs.pop("opset_version", LATEST_OPSET))
        graph = helper.make_graph([node], "node", declared, results)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, version)])
        return cls.run_model(model, dict(zip(names, arrays, strict=True)), device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The CPU alone."""
        return str(device).split(":")[0].upper() == "CPU"


is_compatible = FastconvBackend.is_compatible
prepare = FastconvBackend.prepare
run_model = FastconvBackend.run_model
run_node = FastconvBackend.run_node
supports_device = FastconvBackend.supports_device
