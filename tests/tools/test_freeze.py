"""tools/freeze.py: what it writes of a few problems is the same twice, and a difference is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "freeze.py"


def told(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(TOOL), *map(str, words)]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=300)


def test_it_writes_what_is_chosen_and_tells_what_differs(tmp_path: Path) -> None:
    done = told("one", "--problems", 6, "--works", 2)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert any("work" in line for line in lines) and len(lines) > 8
    files = tmp_path / "before.jsonl", tmp_path / "after.jsonl"
    for file in files:
        file.write_text(done.stdout)
    assert told("compare", *files).returncode == 0
    changed = [{**line, "bits": ["other"]} if "work" in line else line for line in lines]
    files[1].write_text("".join(json.dumps(line) + "\n" for line in changed))
    assert told("compare", *files).returncode == 1
