"""The quick tier of the reliability board, a test a row."""

import pytest
from reliability import board

ROWS = [r for r in board.rows() if r.quick is not None]


@pytest.mark.parametrize("row", ROWS, ids=[r.name for r in ROWS])
def test_row(row: board.Row) -> None:
    result = board.run_row(row, "quick")
    if result.skipped:
        pytest.skip(result.skipped)
    assert result.passed, f"{result.figure}: {result.got}\n" + "\n".join(result.failures)


def test_a_crash_and_a_hang_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    crashed = board._in_a_process("no row of this name", 1, None, 60)
    assert not crashed.passed and "no row is called" in crashed.failures[0]
    hung = board._in_a_process(ROWS[0].name, 1, None, 0.01)
    assert not hung.passed and "hung" in hung.failures[0]
