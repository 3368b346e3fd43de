"""The instruction set that the environment asks for."""

from __future__ import annotations

import os

from .. import _native
from ..errors import import_refused


def select_isa() -> None:
    """Honour FASTCONV_ISA at import."""
    name = os.environ.get("FASTCONV_ISA", "").strip().lower()
    if name and not _native.isa_use(name):
        built, offered = _native.isas_built(), _native.isas_available()
        why = "this machine does not offer it" if name in built else "it was not built"
        import_refused(
            f"FASTCONV_ISA={name}: {why}. Built: {', '.join(built)}; offered here: {', '.join(offered)}. "
            "Choose one of the latter or unset FASTCONV_ISA."
        )


select_isa()
