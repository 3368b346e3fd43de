# Whether the arrays of a run are as its plan has them, asked of their buffers: a question in Python is a tenth of a
# microsecond. And the run itself: its work was bound by the one before, and only the arrays are others.

cdef extern from *:
    """
    static inline int fc_change(int *state, int from, int to) {
        return __atomic_compare_exchange_n(state, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    static inline void fc_set(int *state, int to) { __atomic_store_n(state, to, __ATOMIC_RELEASE); }
    """
    bint fc_change(int* state, int from_, int to) noexcept nogil
    void fc_set(int* state, int to) noexcept nogil


cdef enum:
    UNBOUND = 0    # of a plan's work: there is none
    BOUND = 1
    IN_USE = 2     # by one thread, which alone may look at it and changes this back


cdef class Planned:
    """The arrays of a plan: element type, shapes without the batch, and whether only contiguous inputs go to the driver.

    `Planned(dtype, input_shape, output_shape, contiguous, adds_in_place)`, of plans whose arrays have a batch axis; with
    the last the residual may be `out` itself.
    """
    cdef int state
    cdef Work work          # of the last run, without its arrays
    cdef NetStep step
    cdef Moving* moves      # its pointers into input, result and residual, in this order
    cdef size move_count
    cdef size batch
    cdef size strides[5]    # of the input
    cdef bint adds
    cdef object dtype
    cdef int axes
    cdef size before[5]   # shapes of the input and of the result
    cdef size after[5]
    cdef bint contiguous, adds_in_place

    def __init__(self, dtype, tuple input_shape, tuple output_shape, bint contiguous, bint adds_in_place=False):
        cdef int i
        self.dtype, self.contiguous, self.adds_in_place = dtype, contiguous, adds_in_place
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
                    and buffers_apart(x, y) and (residual is None or self.may_add(r, y)))
        except (BufferError, ValueError, TypeError):   # memory that is not lent, or not to be written
            return False
        finally:
            arrays.release()

    def again(self, input, out, residual=None):
        """Do the work of the run that was kept on other arrays that lie as those did. Whether that was done: where it was not,
        `out` may have been written to, which must then be one that `takes` takes."""
        cdef Py_buffer buffers[3]
        cdef int held = 0, i, done
        if not (self.of_type(input) and self.of_type(out) and (residual is None or self.of_type(residual))):
            return False
        if fc_recorder != NULL or not fc_change(&self.state, BOUND, IN_USE):
            return False   # a net keeps works with their arrays
        try:
            if self.adds != (residual is not None):
                return False
            while held < 2 + self.adds:
                array = input if held == 0 else out if held == 1 else residual
                if get_buffer(array, &buffers[held], PyBUF_STRIDES | (PyBUF_WRITABLE if held == 1 else 0)) < 0:
                    PyErr_Clear()
                    return False
                held += 1
            return self.lie_alike(buffers, held) and self.repeat(buffers)
        finally:
            for i in range(held):
                PyBuffer_Release(&buffers[i])
            fc_set(&self.state, BOUND)

    cdef bint lie_alike(self, const Py_buffer* buffers, int count) noexcept:
        """Whether input, result and residual lie as the kept ones, aligned, and the result apart."""
        cdef int i
        if not self.shaped(&buffers[0], self.before, self.batch) or not buffers_apart(&buffers[0], &buffers[1]):
            return False
        for i in range(self.axes):
            if buffers[0].strides[i] != self.strides[i]:
                return False
        for i in range(count):
            if <size>buffers[i].buf % buffers[i].itemsize != 0:
                return False
            if i and not (self.shaped(&buffers[i], self.after, self.batch) and lies_in_order(&buffers[i])):
                return False
        return count < 3 or self.may_add(&buffers[2], &buffers[1])

    cdef bint may_add(self, const Py_buffer* residual, const Py_buffer* result) noexcept:
        """Of C-contiguous ones of the same shape."""
        return self.adds_in_place and residual.buf == result.buf or buffers_apart(residual, result)

    cdef bint repeat(self, const Py_buffer* buffers) except -1:
        """The kept work on these arrays; False where a value is not finite that must be."""
        cdef size i, bytes = self.work.memory()
        cdef char* memory = NULL
        cdef fc_look look = own_look()
        cdef int stopped
        cdef bint flagged
        for i in range(self.move_count):
            self.moves[i].place[0] = <char*>buffers[self.moves[i].region].buf + self.moves[i].offset
        if bytes:
            memory = <char*>allocate(bytes)
        with nogil:
            flagged = perform(&self.step, memory, self.step.call.team, look, &stopped)
            fc_free(memory)
        raise_stopped(stopped)
        return not flagged

    def keep(self, works, input, out, residual=None):
        """Keep the work of a run on arrays that `takes` took, if it was a single one whose arrays may be others."""
        cdef Arrays arrays = Arrays()
        cdef const Py_buffer* x
        if len(works) != 1 or not fc_change(&self.state, UNBOUND, IN_USE) and not fc_change(&self.state, BOUND, IN_USE):
            return
        done = False
        try:
            x = arrays.hold(input, False)
            arrays.hold(out, True)
            if residual is not None:
                arrays.hold(residual, False)
                if not buffers_apart(x, &arrays.buffers[2]) or not buffers_apart(&arrays.buffers[1], &arrays.buffers[2]):
                    return   # which pointers are into which
            done = self.bind_to(works[0], arrays)
        finally:
            arrays.release()
            fc_set(&self.state, BOUND if done else UNBOUND)

    cdef bint bind_to(self, Work work, Arrays arrays) except -1:
        cdef size low, high, i, k
        cdef const Py_buffer* x = &arrays.buffers[0]
        if work.fixed or work.flagged or x.len == 0:
            return False
        for i in range(arrays.count):
            if <size>arrays.buffers[i].buf % arrays.buffers[i].itemsize != 0:
                return False
        fc_free(self.moves)
        self.moves, self.move_count = <Moving*>allocate(max(1, work.place_count) * sizeof(Moving)), 0
        for i in range(arrays.count):
            buffer_span(&arrays.buffers[i], &low, &high)
            for k in range(work.place_count):
                if low <= <size>work.places[k][0] < high:
                    self.moves[self.move_count] = Moving(
                        work.places[k], i, <size>work.places[k][0] - <size>arrays.buffers[i].buf)
                    self.move_count += 1
            work.let_go(low, high)
        self.work, self.adds, self.batch = work, arrays.count > 2, x.shape[0]
        for i in range(self.axes):
            self.strides[i] = x.strides[i]
        work.fill(&self.step)
        return True

    def __dealloc__(self):
        fc_free(self.moves)

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
