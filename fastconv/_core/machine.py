"""What the machine says of itself."""

from __future__ import annotations

import contextlib
import os


def cpu_name() -> str:
    """The processor's name as its maker spells it, or the architecture where the system does not tell."""
    told = _cpuinfo(whole=True)  # ARM's boards name themselves at the end
    if name := told.get("model name") or told.get("Model"):
        return name
    import platform  # here: both take longer than to read a file
    import subprocess

    try:  # macOS
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return platform.processor() or platform.machine()


def _cpuinfo(whole: bool = False) -> dict[str, str]:
    """What /proc/cpuinfo says of the first processor, or of the `whole` machine; nothing without such a file."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            key, colon, value = line.partition(":")
            if not (colon or whole):
                break
            found.setdefault(key.strip(), value.strip())
    return found


def microarchitecture() -> str:
    """'zen4' or 'zen5', those that were measured; '' for every other processor."""
    told = _cpuinfo()
    if told.get("vendor_id") != "AuthenticAMD" or not told.get("model", "").isdigit():
        return ""
    family, model = told.get("cpu family"), int(told["model"])
    if family == "26":
        return "zen5"
    return "zen4" if family == "25" and (0x10 <= model <= 0x1F or 0x60 <= model <= 0xAF) else ""


USUAL_CACHES = (32 << 10, 1 << 20)


def caches() -> tuple[int, int]:
    """Bytes of the first-level data cache and of the second-level cache of a core, where the system does not tell those
    of most processors."""
    sizes = []
    for level, usual in zip(("SC_LEVEL1_DCACHE_SIZE", "SC_LEVEL2_CACHE_SIZE"), USUAL_CACHES, strict=True):
        size = 0
        with contextlib.suppress(ValueError, OSError, AttributeError):  # no such name, or no such function
            size = os.sysconf(level)
        sizes.append(size if size > 0 else usual)
    return sizes[0], sizes[1]
