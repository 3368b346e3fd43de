"""What a weights file holds, in one form for all of them: layers with arrays by role."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import ConvError

MOST_ENTRIES: Final = 20_000  # of one file; the largest nets have some thousand

# The last part of a name → the role of the array in a layer.
KERAS_ROLES: Final = {
    name: name for name in ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
} | {"depthwise_kernel": "kernel", "pointwise_kernel": "kernel"}  # fmt: skip
NORMALISATION: Final = {
    "weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance",
}  # fmt: skip
COUNTERS: Final = ("num_batches_tracked",)  # which no layer of ours has


class SourceLayer(NamedTuple):
    """A layer of a file: its name, its class where the file says (snake case), and its arrays by role.

    Kernels have our axes, (kH, kW, in channels of a group, out channels) or (inputs, units); a depthwise kernel is
    (kH, kW, 1, channels).
    """

    name: str
    kind: str
    arrays: dict[str, Array]


class Source(NamedTuple):
    """The layers of a file. `in_order`: as the net has them; else only those of one kind are in order."""

    layers: list[SourceLayer]
    in_order: bool
    channels_first: bool  # behind Flatten the values come channel by channel, as in PyTorch


def from_bfloat16(values: Array) -> Array:
    """16-bit words that hold bfloat16, the upper half of a float32, as float32."""
    wide: Array = (values.astype(np.uint32) << 16).view(np.float32)
    return wide


def grouped(entries: Iterable[tuple[str, Array]], separator: str) -> dict[str, dict[str, Array]]:
    """Arrays by the last part of their names, under the part before it, in order."""
    layers: dict[str, dict[str, Array]] = {}
    for name, array in entries:
        layer, _, last = name.rpartition(separator)
        layers.setdefault(layer, {})[last] = array
    return layers


def from_state_dict(tensors: dict[str, Array]) -> Source:
    """The layers of a PyTorch state dictionary: 'features.0.weight' is the weight of the layer 'features.0'."""
    made = []
    for name, parts in grouped(tensors.items(), ".").items():
        arrays: dict[str, Array] = {}
        norm = "running_mean" in parts
        for last, array in parts.items():
            if last in COUNTERS:
                continue
            role = NORMALISATION.get(last, last) if norm else {"weight": "kernel"}.get(last, last)
            arrays[role] = _from_pytorch_axes(array) if role == "kernel" else array
        made.append(SourceLayer(name, "", arrays))
    return Source(made, True, True)


def _from_pytorch_axes(kernel: Array) -> Array:
    """(out, in, kH, kW) as (kH, kW, in, out), transposed kernels (in, out, ...) as (..., out, in); (out, in) turned."""
    if kernel.ndim == 4:
        return kernel.transpose(2, 3, 1, 0)
    return kernel.T if kernel.ndim == 2 else kernel


def from_paths(arrays: dict[str, Array]) -> Source:
    """The layers of names such as 'block/conv/kernel', with Keras' roles and axes."""
    made: list[SourceLayer] = []
    for name, parts in grouped(arrays.items(), "/").items():
        made += keras_layers(name, "", {last.partition(":")[0]: array for last, array in parts.items()})
    return Source(made, True, False)


def keras_layers(name: str, kind: str, parts: dict[str, Array]) -> list[SourceLayer]:
    """One layer of Keras as ours: a separable convolution is a depthwise one and a 1x1."""
    if "pointwise_kernel" in parts:
        depthwise = {"kernel": _as_channels(parts["depthwise_kernel"])} if "depthwise_kernel" in parts else {}
        rest = {KERAS_ROLES.get(role, role): array for role, array in parts.items() if role != "depthwise_kernel"}
        return [
            SourceLayer(f"{name}/depthwise", f"{kind}/depthwise", depthwise),
            SourceLayer(f"{name}/pointwise", f"{kind}/pointwise", rest),
        ]
    made = {
        KERAS_ROLES.get(role, role): _as_channels(array) if role == "depthwise_kernel" else array
        for role, array in parts.items()
    }
    return [SourceLayer(name, kind, made)]


def _as_channels(kernel: Array) -> Array:
    """(kH, kW, C, multiplier) as (kH, kW, 1, C * multiplier)."""
    return kernel.reshape(*kernel.shape[:2], 1, -1) if kernel.ndim == 4 else kernel


def require_few(count: int) -> None:
    """Refuse a file of more entries than any net has: work on names must not grow without a bound."""
    if count > MOST_ENTRIES:
        raise ConvError(f"it claims {count} entries, more than {MOST_ENTRIES}")
