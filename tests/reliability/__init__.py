"""The reliability board: each promise of the contract as a row "got / target", counted by a run.

    PYTHONPATH=tests python -P -m reliability --tier quick     # what make test runs
    PYTHONPATH=tests python -P -m reliability --tier full --json docs/reliability.json --page docs/reliability.md

A row is a function in a module of `reliability.rows`, registered by `board.row`. It runs in a process of its own (under
each instruction set of this machine where that matters), so that a crash or a hang is a failed row, not a lost board.
"""
