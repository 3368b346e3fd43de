"""One harness under atheris: `python -P -m fuzz.engine HARNESS LIBFUZZER-OPTIONS...`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

TARGETS = {
    "api": ("fuzz.calls", "target"),
    "onnx": ("fuzz.files", "onnx"),
    "pth": ("fuzz.files", "pytorch"),
    "safetensors": ("fuzz.files", "safetensors"),
}


def main(name: str, options: list[str]) -> None:
    try:
        import atheris
    except ImportError:
        raise SystemExit("coverage-guided fuzzing needs: pip install fastconv[fuzz]") from None
    module, made = TARGETS[name]
    with atheris.instrument_imports(include=["fastconv"], exclude=["fastconv.reference"], enable_loader_override=False):
        target = getattr(import_module(module), made)()
    extra: dict[str, Any] = {}
    if name == "onnx":
        extra["custom_mutator"] = import_module(module).onnx_mutator
    again = f"{sys.executable} -P -m fuzz.engine {name}"  # what the engine starts to merge corpora, through a shell
    atheris.Setup([again, *options], target, **extra)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
