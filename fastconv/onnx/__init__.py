"""ONNX models run by fastconv: convolutional networks without a runtime of their own.

    from fastconv.onnx import InferenceSession
    session = InferenceSession("model.onnx")
    outputs = session.run(None, {session.get_inputs()[0].name: image})

The names are ONNX Runtime's. Types that NumPy has not, and writing models, take the package `onnx`:
pip install fastconv[onnx].
`fastconv.onnx.backend` is the same in the form of `onnx.backend.base`.
"""

from __future__ import annotations

from ..graph.errors import OnnxError, UnsupportedOperator
from ..graph.graph import ValueInfo
from ..graph.summary import Profile, StepTime
from .session import InferenceSession

__all__ = ["InferenceSession", "OnnxError", "Profile", "StepTime", "UnsupportedOperator", "ValueInfo"]
