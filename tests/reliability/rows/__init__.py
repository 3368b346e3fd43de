"""The rows, a module a subject; all are imported when the board is asked for its rows."""
