"""Keras as it is installed here: its version, its backend, and its NumPy backend without JAX."""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import numpy as np

OLDEST: Final = (3, 13)  # its rules of types and its signatures are today's
BEFORE: Final = 4  # the first version that nothing is known of
BACKENDS: Final = ("numpy", "torch")
FRAMEWORKS: Final = ("jax", "openvino", "tensorflow", "torch")
CHOOSE: Final = (
    "Set the environment variable KERAS_BACKEND to 'torch' (training and prediction) or 'numpy' (prediction) before "
    'Keras is imported for the first time, or "backend" in ~/.keras/keras.json.'
)


def load() -> tuple[str, ModuleType]:
    """Keras' backend and the module whose functions its layers and operators call.

    Raises
    ------
    ImportError
        If Keras, or what its backend needs, is missing, or its version or backend is none that fastconv works in.
    """
    try:
        with jax_is_optional():
            keras: Any = importlib.import_module("keras")
    except ModuleNotFoundError as error:
        if error.name == "keras":
            raise ImportError("fastconv.keras needs Keras 3: pip install fastconv[keras]", name="keras") from error
        if error.name in FRAMEWORKS:
            raise ImportError(
                f"Keras cannot be imported: its backend needs {error.name}, which is missing. fastconv.keras works in "
                f"the backends 'torch' and 'numpy'. {CHOOSE}",
                name=error.name,
            ) from error
        raise
    version = str(getattr(keras, "__version__", "unknown"))
    if not supported(version):
        raise ImportError(
            f"fastconv.keras works in Keras from {'.'.join(map(str, OLDEST))} on and before {BEFORE}, but {version} is "
            f'installed: pip install "keras>={".".join(map(str, OLDEST))},<{BEFORE}"',
            name="keras",
        )
    backend = str(keras.config.backend())
    if backend not in BACKENDS:
        raise ImportError(
            f"fastconv.keras works in Keras' backends 'torch' and 'numpy', but Keras runs on {backend!r}. {CHOOSE}",
            name="keras",
        )
    with jax_is_optional():
        return backend, importlib.import_module(f"keras.src.backend.{backend}.nn")


def supported(version: str) -> bool:
    """Whether this version of Keras is one that fastconv works in."""
    parts = version.split(".")
    try:
        number = int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return False
    return OLDEST <= number < (BEFORE, 0)


# ---- without JAX ---------------------------------------------------------------------------------------------------


class Absent:
    """Stands where Keras' NumPy backend holds JAX, and says so when it is asked for anything."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ModuleNotFoundError(
            "Keras' NumPy backend asks JAX for this, and JAX is missing: pip install jax, or let fastconv compute what "
            "it can (fastconv.keras.install()).",
            name="jax",
        )


def _transform(function: Any) -> Any:
    """`numpy.fft`'s function as Keras calls JAX's: real and imaginary parts in and out."""

    def transformed(x: tuple[Any, Any]) -> tuple[Any, Any]:
        real, imaginary = x
        y = function(np.asarray(real) + 1j * np.asarray(imaginary))
        kind = np.result_type(real, imaginary)
        return y.real.astype(kind), y.imag.astype(kind)

    return transformed


STAND_INS: Final[dict[str, Any]] = {
    "jax": SimpleNamespace(lax=Absent()),
    "keras.src.backend.jax.math": SimpleNamespace(fft=_transform(np.fft.fft), fft2=_transform(np.fft.fft2)),
}


def _import_without_jax(
    name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] | None = (), level: int = 0
) -> Any:
    """`__import__` for the modules of Keras' NumPy backend."""
    found = STAND_INS.get(name) if level == 0 else None
    if found is None:
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    return found


class _Loader(importlib.abc.Loader):
    """Runs a module whose imports of JAX get a stand-in; nobody else sees it, `sys.modules` least of all."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import_without_jax}
        self._loader.exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of Keras' NumPy backend."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("keras.src.backend.numpy."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def jax_is_missing() -> bool:
    """Whether `import jax` would fail."""
    if "jax" in sys.modules:
        return sys.modules["jax"] is None
    return importlib.util.find_spec("jax") is None


@contextmanager
def jax_is_optional() -> Iterator[None]:
    """Within this block Keras' NumPy backend can be imported, with or without JAX."""
    if not jax_is_missing():
        yield
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
