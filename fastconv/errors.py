"""The two exceptions of the package."""


class ConvError(ValueError, RuntimeError):
    """A value, a shape or a combination of options that has no meaning.

    Both a `ValueError` (what Keras raises) and a `RuntimeError` (what PyTorch raises), so that code ported from
    either keeps catching it.
    """


class ConvTypeError(TypeError, RuntimeError):
    """An argument of a type, or an array of an element type, that cannot be convolved."""
