# A net: works in their order, done again and again in one crossing of the door.

cdef struct NetStep:             # a Work as it runs
    fc_call call             # its scratch memory, threads and `look` are a run's
    fc_begin begin
    char** flags
    size flag_count


cdef struct Moving:              # a pointer of a job into memory that is another in every run
    char** place
    size region, offset


cdef bint perform(const NetStep* step, char* memory, int most, fc_look look, int* stopped) noexcept nogil:
    """All tasks of a step, on at most so many threads; whether one raised a flag."""
    cdef fc_call call = step.call
    stopped[0] = 0
    if call.tasks == 0:
        return False
    if step.flag_count:
        step.flags[0] = memory + call.scratch_bytes * call.team
        memset(step.flags[0], 0, step.flag_count)
    call.scratch, call.team = memory if call.scratch_bytes else NULL, min(call.team, most)
    call.look = look
    if step.begin != NULL:
        step.begin(call.job, memory, call.scratch_bytes, call.team)
    stopped[0] = fc_run_tasks(&call)
    return step.flag_count > 0 and memchr(step.flags[0], 1, step.flag_count) != NULL


cdef class Net:
    """Net(works, regions): the works, whose arrays it holds, in their order.

    `regions`, (address, bytes), are the arrays that are others in every run. Pointers of the works into them are moved by
    `move`; `movable` says for each region whether all of them can be.

    A thread's scratch lies at the same place in all works: where another processor's lay before, every line would have to
    come from there.
    """
    cdef tuple works
    cdef NetStep* steps
    cdef Moving* moves
    cdef size count, move_count
    cdef char* memory
    cdef readonly list movable

    def __init__(self, works, regions):
        cdef size i, bytes = 0, own = 0
        cdef int most = 0
        cdef Work work
        cdef fc_call* call
        self.works = tuple(works)
        self.count = len(self.works)
        self.steps = <NetStep*>allocate(max(1, self.count) * sizeof(NetStep))
        for i in range(self.count):
            work = self.works[i]
            work.fill(&self.steps[i])
            most = max(most, work.threads)
        for i in range(self.count):
            if self.steps[i].call.team == most:
                own = max(own, self.steps[i].call.scratch_bytes)
        for i in range(self.count):
            call = &self.steps[i].call
            if call.scratch_bytes:
                call.scratch_bytes = max(own, call.scratch_bytes)
            bytes = max(bytes, call.scratch_bytes * call.team + self.steps[i].flag_count)
        self.memory = <char*>allocate(max(1, bytes))
        self.find_moves(regions)

    cdef int find_moves(self, regions) except -1:
        """The pointers of the works into every region."""
        cdef size i, region, count = 0, first, end, at
        cdef int k
        cdef Work work
        for i in range(self.count):
            count += (<Work>self.works[i]).place_count
        self.moves = <Moving*>allocate(max(1, count) * sizeof(Moving))
        self.movable = []
        for region, (first, end) in enumerate(regions):
            end += first
            movable = True
            for i in range(self.count):
                work = self.works[i]
                if work.fixed and work.meets(first, end):
                    movable = False
                for k in range(work.place_count):
                    at = <size>work.places[k][0]
                    if first <= at < end:
                        self.moves[self.move_count] = Moving(work.places[k], region, at - first)
                        self.move_count += 1
            self.movable.append(movable)
        return 0

    def move(self, size region, array):
        """Let the works take an array that lies alike for the one that a region was."""
        cdef size i
        cdef char* base
        cdef Arrays own = Arrays()
        base = <char*>own.take(array, False).buf
        own.release()
        for i in range(self.move_count):
            if self.moves[i].region == region:
                self.moves[i].place[0] = base + self.moves[i].offset

    cpdef size run(self, size first, size last, int threads) except -1:
        """Do the works first .. last - 1 on at most so many threads; the number of the first one that raised a flag and
        after which nothing was done, or `last`. May be called by one thread at a time."""
        cdef fc_look look = own_look()
        cdef int stopped = 0
        cdef size i = first
        with nogil:
            while i < last:
                if perform(&self.steps[i], self.memory, threads, look, &stopped) or stopped:
                    break
                i += 1
        raise_stopped(stopped)
        return i

    def __dealloc__(self):
        fc_free(self.steps)
        fc_free(self.moves)
        fc_free(self.memory)


cdef enum:
    MOST_LEFT_OUT = 16     # in a stream of what is not finite one run in so many more is for nothing


cdef class Pause:
    """When to try again what a value that is not finite stopped: at once after the first one, then after 1, 2, 4, ...
    runs, as more of it often comes."""
    cdef int left, next

    def over(self):
        """Whether it is to be tried in this run."""
        if self.left > 0:
            self.left -= 1
            return False
        return True

    def stopped(self):
        """It was tried, and a value was not finite."""
        self.left, self.next = self.next, min(MOST_LEFT_OUT, max(1, 2 * self.next))

    def went(self):
        """It was tried, and all values were finite."""
        self.next = 0


cdef class Straight:
    """Runs that native works alone do, in one step from the caller's arrays to new ones: in a small net the steps of
    Python around its works take as long as they do.

    Straight(net, inputs, outputs, copied): `inputs` are (name, home, region); `outputs` are (name, home, region or -1), of
    which those that do not lie in the order of their axes, or have no region, are handed out as `copied(home, threads)`.
    """
    cdef Net net
    cdef tuple inputs, outputs
    cdef object copied
    cdef Pause pause

    def __init__(self, Net net, inputs, outputs, copied):
        self.net, self.copied, self.pause = net, copied, Pause()
        self.inputs = tuple([(name, home.dtype, home.shape, home.strides, region) for name, home, region in inputs])
        self.outputs = tuple([
            (name, home, region, region < 0 or not home.flags.c_contiguous) for name, home, region in outputs
        ])

    def run(self, feeds, int threads):
        """The outputs by name; None, and nothing has happened, where an input does not lie as its home does, and None
        where a value is not finite."""
        cdef dict found = {}
        if not self.pause.over():
            return None
        if type(feeds) is not dict or len(<dict>feeds) != len(self.inputs):
            return None
        for name, dtype, shape, strides, region in self.inputs:
            x = (<dict>feeds).get(name)
            if (type(x) is not ndarray or x.dtype != dtype or x.shape != shape or x.strides != strides
                    or not x.flags.aligned):
                return None
            self.net.move(region, x)
        for name, home, region, copies in self.outputs:
            found[name] = home if copies else empty_like(home)
            if region >= 0:
                self.net.move(region, found[name])
        if self.net.run(0, self.net.count, threads) < self.net.count:
            self.pause.stopped()
            return None
        self.pause.went()
        for name, home, region, copies in self.outputs:
            if copies:
                found[name] = self.copied(home, threads)
        return found
