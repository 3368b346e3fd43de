"""What a wheel for publication must be: at most 2 MB, with its OpenMP runtime and types inside, no sources, and one
compiled module, of the ABI that the wheel's name promises.

python tools/check_wheel.py WHEEL...
"""

import sys
import zipfile
from pathlib import Path

MOST_BYTES = 2_000_000


def faults(wheel: Path) -> list[str]:
    """What is wrong with a wheel, in words."""
    names = zipfile.ZipFile(wheel).namelist()
    found = []
    if wheel.stat().st_size > MOST_BYTES:
        found.append(f"{wheel.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
    if "linux" in wheel.name and not any(name.startswith("fastconv.libs/libgomp") for name in names):
        found.append("libgomp is not inside: repair the wheel with auditwheel")
    modules = [name for name in names if name.startswith("fastconv/_native.") and name.endswith((".so", ".pyd"))]
    if len(modules) != 1:
        found.append(f"holds {len(modules)} compiled modules ({', '.join(modules)}), not one")
    elif ("-abi3-" in wheel.name) != (".abi3." in modules[0] or modules[0].endswith("_native.pyd")):
        found.append(f"is tagged {wheel.name}, but holds {modules[0]}")
    found += [f"{name} is missing" for name in ("fastconv/py.typed", "fastconv/_native.pyi") if name not in names]
    found += [f"{name} does not belong there" for name in names if name.endswith((".c", ".pyx", ".h", ".o"))]
    return found


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(__doc__)
    bad = False
    for path in map(Path, sys.argv[1:]):
        problems = faults(path)
        bad = bad or bool(problems)
        print(f"{path.name}: {path.stat().st_size:,} bytes", *problems, sep="\n  ")
    sys.exit(bad)
