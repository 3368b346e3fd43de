"""Write docs/performance.md from the results files: python bench/make_page.py [RESULTS_FOLDER [PAGE]].

A file's name, without .json, is its heading: name it for the machine, the instruction set and what was run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fastconv.bench.report import Report, page

HERE = Path(__file__).parent


def main(folder: Path = HERE / "results", target: Path = HERE.parent / "docs" / "performance.md") -> int:
    files = sorted(folder.glob("*.json"))
    if not files:
        print(f"no results in {folder}; make some: python -m fastconv bench --set all --json {folder}/NAME.json")
        return 1
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page((file.stem, Report.load(file)) for file in files), encoding="utf-8")
    print(f"{target}: {len(files)} results files")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*map(Path, sys.argv[1:])))
