"""Fuzzing: what is called with bytes (`calls`, `files`), and `python -m fuzz`, which runs and counts."""
