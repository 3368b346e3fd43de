"""Imported first: says what is missing, or too old, and how to install it."""

from __future__ import annotations

from typing import Final

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError("fastconv.torch needs PyTorch: pip install fastconv[torch]") from error

OLDEST: Final = (2, 5)


def require(version: str) -> None:
    """Refuse a PyTorch that is too old, by its version."""
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if len(found) == 2 and found < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise ImportError(
            f"fastconv.torch needs PyTorch {wanted} or newer, but {version} is installed: "
            f"pip install --upgrade 'torch>={wanted}'"
        )


require(torch.__version__)
