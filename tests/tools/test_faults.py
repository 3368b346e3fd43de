"""The planted faults still fit the sources. Whether the tests notice them: `make reliability-faults`."""

from pathlib import Path

from reliability.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]


def test_every_planted_fault_applies_exactly_once() -> None:
    assert len(MUTATIONS) == len({m.what for m in MUTATIONS}) == 67
    wrong = [m.what for m in MUTATIONS if (ROOT / m.file).read_text().count(m.find) != 1 or m.find == m.replace]
    assert wrong == []
