# Whether the arrays of a run are as its plan has them, asked of their buffers: a question in Python is a tenth of a microsecond.

cdef class Planned:
    """The arrays of a plan: element type, shapes without the batch, and whether only contiguous inputs go to the driver.

    `Planned(dtype, input_shape, output_shape, contiguous)`, of plans whose arrays have a batch axis.
    """
    cdef object dtype
    cdef int axes
    cdef size before[5]   # shapes of the input and of the result
    cdef size after[5]
    cdef bint contiguous

    def __init__(self, dtype, tuple input_shape, tuple output_shape, bint contiguous):
        cdef int i
        self.dtype, self.contiguous = dtype, contiguous
        self.axes = 1 + len(input_shape)
        if self.axes > 5 or len(input_shape) != len(output_shape):
            raise ValueError("a plan has one to three spatial axes")
        for i in range(1, self.axes):
            self.before[i], self.after[i] = input_shape[i - 1], output_shape[i - 1]

    def takes(self, input, out=None, residual=None):
        """Whether plain arrays of the type and the shapes, of one batch, are given, `out` and `residual` C-contiguous, and
        an `out` that may be written lies apart from the others."""
        cdef Arrays arrays = Arrays()
        cdef const Py_buffer* x
        cdef const Py_buffer* y
        cdef const Py_buffer* r = NULL
        if not (self.of_type(input) and (out is None or self.of_type(out)) and (residual is None or self.of_type(residual))):
            return False
        try:
            x = arrays.hold(input, False)
            if not self.shaped(x, self.before, x.shape[0] if x.ndim else 0) or (self.contiguous and not lies_in_order(x)):
                return False
            if residual is not None:
                r = arrays.hold(residual, False)
                if not self.shaped(r, self.after, x.shape[0]) or not lies_in_order(r):
                    return False
            if out is None:
                return True
            y = arrays.hold(out, True)
            return (self.shaped(y, self.after, x.shape[0]) and lies_in_order(y) and <size>y.buf % y.itemsize == 0
                    and buffers_apart(x, y) and (residual is None or buffers_apart(r, y)))
        except (BufferError, ValueError, TypeError):   # memory that is not lent, or not to be written
            return False
        finally:
            arrays.release()

    cdef bint of_type(self, array) except -1:
        if type(array) is not ndarray:
            return False
        dtype = array.dtype
        return dtype is self.dtype or dtype == self.dtype

    cdef bint shaped(self, const Py_buffer* buffer, const size* shape, size batch) noexcept:
        cdef int i
        if buffer.ndim != self.axes or buffer.shape[0] != batch:
            return False
        for i in range(1, self.axes):
            if buffer.shape[i] != shape[i]:
                return False
        return True


cdef bint lies_in_order(const Py_buffer* buffer) noexcept:
    """Whether an array is C-contiguous; one without elements is."""
    cdef size step = buffer.itemsize
    cdef int i
    cdef bint ordered = True
    for i in range(buffer.ndim - 1, -1, -1):
        if buffer.shape[i] == 0:
            return True
        ordered = ordered and (buffer.shape[i] == 1 or buffer.strides[i] == step)
        step *= buffer.shape[i]
    return ordered


cdef bint buffers_apart(const Py_buffer* a, const Py_buffer* b) noexcept:
    """Whether the memory that two arrays span does not overlap."""
    cdef size low_a, high_a, low_b, high_b
    buffer_span(a, &low_a, &high_a)
    buffer_span(b, &low_b, &high_b)
    return high_a <= low_b or high_b <= low_a


cdef void buffer_span(const Py_buffer* buffer, size* low, size* high) noexcept:
    """The bytes that an array's elements lie in."""
    cdef int i
    low[0], high[0] = <size>buffer.buf, <size>buffer.buf + buffer.itemsize
    for i in range(buffer.ndim):
        if buffer.shape[i] == 0:
            high[0] = low[0]
            return
        if buffer.strides[i] < 0:
            low[0] += (buffer.shape[i] - 1) * buffer.strides[i]
        else:
            high[0] += (buffer.shape[i] - 1) * buffer.strides[i]
