# Work that waits for its turn: a driver binds arrays to a job, and the job runs, once or in every run of a net, without
# Python. A net (drivers/net.pxi) records what its steps did and does it again.

cdef extern from *:
    """
    static _Thread_local PyObject *fc_recorder; /* the list of the works that this thread does, which it holds; or NULL */
    """
    PyObject* fc_recorder


def record(into):
    """From now on every work of this thread is appended to the list `into`; None: no more. What it was before."""
    global fc_recorder
    cdef PyObject* before = fc_recorder
    if into is None:
        fc_recorder = NULL
    else:
        Py_INCREF(into)
        fc_recorder = <PyObject*>into
    if before == NULL:
        return None
    was = <object>before
    Py_DECREF(was)
    return was


cdef class Work(Arrays):
    """Tasks of one job on arrays that stay where they are, which it holds."""

    def __dealloc__(self):
        cdef void* piece
        fc_free(self.late)
        while self.owned != NULL:
            piece = self.owned
            self.owned = (<void**>piece)[0]
            fc_free(piece)

    cdef void* own(self, size bytes) except NULL:
        """Memory that lasts as long as this."""
        cdef void* piece = allocate(OWNED_AT + bytes)
        (<void**>piece)[0], self.owned = self.owned, piece
        return <char*>piece + OWNED_AT

    cdef int place(self, char** at) except -1:
        """A pointer of the job into one of its arrays, which may be made to point into another that lies alike."""
        cdef char*** before = self.places
        if before == NULL:
            self.places, self.place_room = self.few_places, FEW_PLACES
        elif self.place_count == self.place_room:
            self.place_room *= 2
            self.places = <char***>self.own(self.place_room * sizeof(char**))
            memcpy(self.places, before, self.place_count * sizeof(char**))
        self.places[self.place_count] = at
        self.place_count += 1
        return 0

    cdef int team(self, int threads) except -1:
        """The threads that it is worth and that have scratch."""
        self.threads = <int>team_for(threads, self.tasks, self.scratch_bytes)
        return 0

    cdef size memory(self) noexcept nogil:
        """Bytes of scratch and flags that a run takes."""
        return (self.scratch_bytes * self.threads + self.flag_count) if self.tasks else 0

    cdef void fill(self, NetStep* step) noexcept nogil:
        """The work as it runs."""
        step.call = fc_call(self.task, self.job, NULL, self.scratch_bytes, self.tasks, self.sites, self.threads, self.even,
                            NULL)
        step.begin, step.flags, step.flag_count = self.begin, self.flags, self.flag_count

    cdef void let_go(self, size first, size end) noexcept:
        """Release the arrays that begin in this memory."""
        cdef int i
        for i in range(self.count):
            if first <= <size>self.buffers[i].buf < end:
                PyBuffer_Release(&self.buffers[i])

    cdef bint meets(self, size first, size end) noexcept:
        """Whether one of its arrays begins in this memory."""
        cdef int i
        for i in range(self.count):
            if first <= <size>self.buffers[i].buf < end:
                return True
        return False

    def run(self):
        """Do it now; None or, where a task raised a flag, a byte for each."""
        cdef size bytes = self.memory()
        cdef char* memory = NULL
        cdef fc_look look = own_look()
        cdef int stopped
        cdef NetStep step
        self.fill(&step)
        try:
            if bytes:
                memory = <char*>allocate(bytes)
            with nogil:
                self.flagged = perform(&step, memory, self.threads, look, &stopped)
            raise_stopped(stopped)
            if fc_recorder != NULL:
                (<list>fc_recorder).append(self)
            return self.flags[0][:self.flag_count] if self.flagged else None
        finally:
            fc_free(memory)


cdef inline size sites_of(size images, size groups, size places) noexcept nogil:
    """The `sites` of tasks whose innermost are an image's places, then its groups, then the images: what channels of one
    image write beside each other, and whole images, belong to one thread."""
    return places if images == 1 else images * groups * places
