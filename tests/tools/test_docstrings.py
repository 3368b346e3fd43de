"""Every public object has a docstring that numpydoc finds complete."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

import fastconv

validate = pytest.importorskip("numpydoc.validate", reason="needs numpydoc: pip install fastconv[test]").validate

# Module and the package that it needs besides ours.
MODULES = {
    "fastconv": None,
    "fastconv.callbacks": None,
    "fastconv.dask": "dask",
    "fastconv.grad": None,
    "fastconv.keras": None,
    "fastconv.layers": None,
    "fastconv.losses": None,
    "fastconv.models": None,
    "fastconv.onnx": "onnx",
    "fastconv.optimizers": None,
    "fastconv.quantized": None,
    "fastconv.reference": None,
    "fastconv.scipy": None,
    "fastconv.streaming": None,
    "fastconv.scipy.ndimage": None,
    "fastconv.torch": "torch",
    "fastconv.models.training": None,
    "fastconv.weights": None,
}
# All of numpydoc's checks but these.
NOT_ASKED = {
    "GL01": "a docstring's text starts on the line of its quotes here",
    "GL02": "a docstring of one line ends on it",
    "SS05": "takes nouns that end in s for verbs in the third person",
    "SS06": "summaries that name a formula with its variables may take two lines",
    "ES01": "a summary that says all needs no second paragraph",
    "SA01": "pages of the documentation hold the relations between functions",
    "EX01": "asked of the functions in EXAMPLES",
    "PR06": "'bool' and 'int' are written as Python writes them, which it takes amiss in unions",
    "RT02": "a single result is named by its type",
    "YD01": "asked of methods that yield to callers, which are few; PR and RT hold for them",
}
PARAMETERS = {f"PR{i:02}" for i in range(1, 11)} | {f"RT{i:02}" for i in range(1, 6)}
# What layers and nets say to each other, and what a twin or a subclass shares with the function that it follows, is
# described there: of these a sentence is asked.
PROTOCOL = {
    "accepts", "activation_values", "add", "affine", "allocated", "array", "backward_weights", "default_name", "error",
    "forward_logits", "geometry", "named_parameters", "parameters", "release", "size", "sublayers",
    "trained_parameters", "twin", "updated", "window", "count_non_trainable",
}  # fmt: skip
TWINS = "fastconv.reference."
MADE_BY_FUNCTIONS = {"fastconv.ConvPlan"}  # whose constructors nobody calls
EXAMPLES = {
    "fastconv.avg_pool2d", "fastconv.conv1d", "fastconv.conv2d", "fastconv.conv2d_backward",
    "fastconv.conv_transpose2d", "fastconv.dask.conv2d", "fastconv.explain_conv2d", "fastconv.grad.conv2d_input",
    "fastconv.grad.conv2d_weight", "fastconv.layers.Conv2D", "fastconv.max_pool2d", "fastconv.models.resnet",
    "fastconv.models.vgg", "fastconv.plan_conv2d", "fastconv.scipy.convolve2d", "fastconv.scipy.correlate2d",
    "fastconv.scipy.ndimage.convolve", "fastconv.scipy.ndimage.correlate", "fastconv.Sequential",
    "fastconv.tiled_conv2d", "fastconv.tiled_predict",
}  # fmt: skip


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that `cls` defines, less those that take over the docstring of a base."""
    for name, member in vars(cls).items():
        inner = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if name.startswith("_") or not (inspect.isfunction(inner) or isinstance(inner, property)):
            continue
        inherited = any(hasattr(base, name) for base in cls.__mro__[1:])
        if inner.__doc__ or not inherited:
            yield name, member


@cache
def public(module: str) -> dict[str, Any]:
    """What a module offers: its own names, or those of `__all__`."""
    found = import_module(module)
    names = getattr(found, "__all__", None) or [
        name for name, value in vars(found).items() if getattr(value, "__module__", None) == module
    ]
    objects: dict[str, Any] = {}
    for name in names:
        value = getattr(found, name)
        if name.startswith("_") or inspect.ismodule(value) or not callable(value):
            continue
        objects[f"{module}.{name}"] = value
        if inspect.isclass(value):
            objects |= {f"{module}.{name}.{inner}": member for inner, member in members(value)}
    return objects


def wrong(name: str, value: Any) -> list[str]:
    """What numpydoc finds, less what is not asked."""
    spared = set(NOT_ASKED) - ({"EX01"} if name in EXAMPLES else set())
    if name.startswith(TWINS) or name.rpartition(".")[2] in PROTOCOL:
        spared |= PARAMETERS
    if name in MADE_BY_FUNCTIONS or (inspect.isclass(value) and "__init__" not in vars(value)):
        spared |= {"PR01"}  # a constructor that is a base's is described there
    return [f"{name}: {code} {text}" for code, text in validate(name)["errors"] if code not in spared]


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_are_complete(module: str) -> None:
    needed = MODULES[module]
    if needed and find_spec(needed) is None:
        pytest.skip(f"needs {needed}")
    assert public(module), module
    assert [line for name, value in public(module).items() for line in wrong(name, value)] == []


def test_the_examples_asked_for_exist() -> None:
    names = {name for module, needed in MODULES.items() if not needed or find_spec(needed) for name in public(module)}
    assert [name for name in EXAMPLES if name not in names and not name.startswith("fastconv.dask")] == []


def test_a_docstring_without_parameters_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastconv.conv2d, "__doc__", "convolve")
    found = {line.split()[1] for line in wrong("fastconv.conv2d", fastconv.conv2d)}
    assert found >= {"SS02", "SS03", "PR01", "RT01", "EX01"}
