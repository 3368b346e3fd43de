"""Generated problems, and the comparison of the compiled code with the reference over them.

`fastconv check` runs it on the user's machine, the test suite over more cases and with more to say.
"""
