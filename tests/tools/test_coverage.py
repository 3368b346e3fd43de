"""How gcov's reports become figures. The counting itself: `make reliability-coverage`."""

from typing import Any

from reliability.coverage import add, new_counts, spans, summary, words


def entry(line: int, function: str, count: int, *branches: int) -> dict[str, Any]:
    taken = [{"count": b} for b in branches]
    return {"line_number": line, "function_name": function, "count": count, "branches": taken}


def test_a_line_ran_where_one_of_its_functions_did_and_a_branch_for_itself() -> None:
    counts = new_counts()
    lines = [entry(3, "tile_float", 5, 4, 1), entry(3, "tile_double", 0, 0, 0), entry(4, "tile_double", 0)]
    functions = [{"name": "tile_float", "execution_count": 5}, {"name": "tile_double", "execution_count": 0}]
    add(counts, {"lines": lines, "functions": functions})
    found = summary({"a.h": counts})
    assert found == {
        "lines": [1, 2], "branches": [2, 4], "functions": [1, 2],
        "lines_not_run": {"a.h": "4"}, "functions_not_run": ["tile_double"],
    }  # fmt: skip
    assert words({"c": found}) == "50.0 % of 2 lines, 50.0 % of 4 branches, 50.0 % of 2 functions"


def test_what_one_object_ran_ran() -> None:
    counts = new_counts()
    for count in (0, 2, 0):
        add(counts, {"lines": [entry(7, "fc_interrupted", count, count, 0)], "functions": []})
    assert summary({"tasks.h": counts}) == {"lines": [1, 1], "branches": [1, 2], "lines_not_run": {}}


def test_lines_in_a_row_are_a_span() -> None:
    assert spans([]) == "" and spans([3, 7, 8, 9, 12]) == "3, 7-9, 12"
