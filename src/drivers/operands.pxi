# What the programs share at the door: the arrays of a run, and threads that say which of their pieces went wrong.


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


cdef const char* transformed_weights(Arrays arrays, packed) except? NULL:
    """What a fast method made of the weights; NULL where nothing holds it."""
    cdef View view
    if packed is None or packed.transformed is None:
        return NULL
    arrays.view(packed.transformed, &view, False)
    return view.p


cdef run_flagged(fc_task work, void* job, char** flags, size count, size scratch_bytes, size tasks, size threads):
    """`run_tasks` with scratch for every thread; None or, where a task raised one of `count` flags, a byte for each."""
    cdef size team = team_for(threads, tasks, scratch_bytes)
    cdef char* scratch = <char*>allocate(scratch_bytes * team + count)
    try:
        flags[0] = scratch + scratch_bytes * team
        memset(flags[0], 0, count)
        run_tasks(work, job, scratch, scratch_bytes, tasks, <int>team)
        return None if memchr(flags[0], 1, count) == NULL else flags[0][:count]
    finally:
        fc_free(scratch)


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
