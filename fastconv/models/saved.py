"""`load_model`: a net out of a file, as it was saved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .._core.words import flag
from ..errors import ConvTypeError
from .net import Net
from .storage import load_whole


def load_model(
    path: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None, compile: bool = True
) -> Net:
    """Make a net again that `save` wrote: architecture, weights, running statistics, and the optimiser's state.

    It predicts and trains on with the bits that the saved net would have had. Nothing in a file is run: layers are
    those of fastconv, and `custom_objects`.

    Parameters
    ----------
    path : path_like
        Ends in .npz or .safetensors.
    custom_objects : dict, optional
        By their names the classes of layers, optimisers and losses, and the metrics, that are the caller's own.
    compile : bool
        Whether the net is to be trained on: optimiser, losses, metrics and their state are read too.

    Returns
    -------
    Sequential or Model
        Built, with its weights.

    Raises
    ------
    ConvError
        For a file that is damaged, holds weights alone, or needs an object that is not passed.

    Examples
    --------
    >>> import os, tempfile
    >>> import fastconv
    >>> net = fastconv.Sequential([fastconv.layers.Dense(2)], (3,), seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     net.save(os.path.join(folder, "net.npz"))
    ...     fastconv.load_model(os.path.join(folder, "net.npz"))
    <Sequential sequential: 1 layer, (3,) -> (2,), 8 weights>
    """
    if custom_objects is not None and not isinstance(custom_objects, Mapping):
        raise ConvTypeError(f"custom_objects must be a dictionary by name, but got {custom_objects!r}.")
    return load_whole(path, custom_objects or {}, flag("compile", compile))
