# Steps of recurrent cells: what is between two matrix products. Arrays are (directions, batch, values), the last axis
# without gaps, of float32 or float64.

cdef enum:
    CELL_VALUES = 8192      # of a task, at least: some ten microseconds

cdef struct CellJob:
    const fc_norm_kernels* kernels
    View gates, other, cell, hidden     # `other`: the peephole weights of an LSTM, the update gate of a GRU
    size rows, step
    bint lstm, coupled


def lstm_step(gates, peephole, cell, hidden, bint coupled, int threads):
    """cell = f cell + i g, hidden = o tanh(cell), by what goes into the gates i, o, f, g beside each other in `gates`,
    which is used up. `peephole` (directions, 1, 3 hidden) for i, o, f, or None; `coupled`: f = 1 - i."""
    cdef Work work = Work()
    cdef CellJob* job = cell_job(work, gates, cell, hidden, threads)
    job.lstm, job.coupled = True, coupled
    if peephole is not None:
        cell_view(work, peephole, &job.other, False)
    work.run()


def gru_step(candidate, update, hidden, int threads):
    """hidden = (1 - update) tanh(candidate) + update hidden; `candidate` is used up."""
    cdef Work work = Work()
    cdef CellJob* job = cell_job(work, candidate, None, hidden, threads)
    cell_view(work, update, &job.other, False)
    work.run()


cdef int cell_view(Work work, array, View* view, bint writable) except -1:
    work.view(array, view, writable)
    work.place(&view.p)
    if array.ndim != 3 or (view.n[3] > 1 and view.s[3] != array.itemsize):
        raise ValueError("cells take arrays (directions, batch, values) whose last axis has no gaps")
    if view.n[1] == 1:
        view.s[1] = 0
    return 0


cdef CellJob* cell_job(Work work, gates, cell, hidden, int threads) except NULL:
    cdef CellJob* job = <CellJob*>work.own(sizeof(CellJob))
    memset(job, 0, sizeof(CellJob))
    cell_view(work, gates, &job.gates, True)
    job.kernels = isa.norms[layer_code(work.buffers[0].itemsize)]
    cell_view(work, hidden, &job.hidden, True)
    if cell is not None:
        cell_view(work, cell, &job.cell, True)
    job.rows = job.hidden.n[0] * job.hidden.n[1]
    job.step = max(<size>1, CELL_VALUES // max(<size>1, job.gates.n[3]))
    work.task, work.job = cell_task, job
    work.tasks = (job.rows + job.step - 1) // job.step if job.hidden.n[3] else 0
    work.team(threads)
    return job


cdef inline char* cell_row(const View* view, size row, size batch) noexcept nogil:
    return NULL if view.p == NULL else view.p + row // batch * view.s[0] + row % batch * view.s[1]


cdef void cell_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const CellJob* job = <const CellJob*>job_
    cdef size row, batch = job.hidden.n[1]
    for row in range(task * job.step, min(job.rows, (task + 1) * job.step)):
        if job.lstm:
            job.kernels.lstm(cell_row(&job.gates, row, batch), cell_row(&job.other, row, batch),
                             cell_row(&job.cell, row, batch), cell_row(&job.hidden, row, batch), job.hidden.n[3],
                             job.coupled)
        else:
            job.kernels.gru(cell_row(&job.gates, row, batch), cell_row(&job.other, row, batch),
                            cell_row(&job.hidden, row, batch), job.hidden.n[3])
