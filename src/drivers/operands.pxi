# What the programs share at the door: the arrays of a run.


cdef int bind_operands(Operands* o, Arrays arrays, x, bias, residual, y, int activation, bint channels_last) except -1:
    """The arrays of a run as views. `bias` is of the computing type and may be read in whole vectors."""
    cdef View view
    arrays.activation(x, &o.x, False, channels_last)
    arrays.activation(y, &o.y, True, channels_last)
    o.bias = NULL
    if bias is not None:
        arrays.view(bias, &view, False)
        o.bias = view.p
    o.has_residual = residual is not None
    if o.has_residual:
        arrays.activation(residual, &o.residual, False, channels_last)
    o.activation = activation
    return 0


cdef void bind_phase(Operands* o, const Phase* phase) noexcept nogil:
    """The outputs of one phase in the place of all, and what is added to them."""
    phase_view(&o.y, &o.y, phase.first_y, phase.first_x, phase.step_y, phase.step_x)
    if o.has_residual:
        phase_view(&o.residual, &o.residual, phase.first_y, phase.first_x, phase.step_y, phase.step_x)


cdef int read_phase(Phase* phase, p, extent) except -1:
    """The outputs that a pass writes, of those of `extent`."""
    _, phase.first_y, phase.first_x = p.phase
    _, phase.step_y, phase.step_x = p.step
    _, phase.size_y, phase.size_x = extent.size
    phase.size_y = max(<size>0, (phase.size_y - phase.first_y + phase.step_y - 1) // phase.step_y)
    phase.size_x = max(<size>0, (phase.size_x - phase.first_x + phase.step_x - 1) // phase.step_x)
    return 0


cdef int places_of(Work work, View* x, View* y, View* residual, bint has_residual) except -1:
    """The pointers of a job into the arrays that a net may move."""
    work.place(&x.p)
    work.place(&y.p)
    if has_residual:
        work.place(&residual.p)
    return 0


cdef const char* transformed_weights(Work work, packed) except? NULL:
    """What a fast method made of the weights; NULL where nothing holds it."""
    cdef View view
    if packed is None or packed.transformed is None:
        return NULL
    work.view(packed.transformed, &view, False)
    return view.p


cdef int even_taps(taps, size* first, size* apart) except -1:
    """The first of equally spaced offsets, and how far they lie apart: 1 for a single one."""
    cdef size i, count = len(taps)
    first[0], apart[0] = taps[0], 1
    for i in range(1, count):
        if i == 1:
            apart[0] = taps[1] - taps[0]
        elif taps[i] - taps[i - 1] != apart[0]:
            raise ValueError("the taps are not equally spaced")
    return 0
