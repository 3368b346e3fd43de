"""The benchmark: fastconv beside other libraries on the layers of real networks. `python -m fastconv bench` runs it.

`cases` holds the layers, `peers` those who compute them, `measure` the timing, `suite` puts them together into rows,
`report` makes tables, results files and pages of rows, `plot` a picture.
"""
