"""Weights of other libraries: PyTorch's (.pth, .safetensors) and Keras' (.h5, .keras) into models of fastconv.

`load_weights` finds out which layer of the file is which of the model, turns axes (and the order behind Flatten), and
reports what fits nothing and what it had to guess. `read_weights` only reads. Files are not trusted: nothing in them is
run, and what they claim is held against the file and the model before anything is allocated. (The HDF5 library below
`keras` is not as careful.)
"""

from .loading import LoadReport, load_weights, read_weights

__all__ = ["LoadReport", "load_weights", "read_weights"]
