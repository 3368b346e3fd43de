"""Nets as graphs of operators, whoever wrote them: rewritten, planned and run in one crossing into native code.

The operators are those of the ONNX standard, with its names and meanings; `fastconv.onnx` reads files into graphs, and
`fastconv.models` layers.
"""
