# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, freethreading_compatible=True
"""The only door between Python and native code: buffers in, numbers in, exceptions out.

Arrays come in the logical axis order (batch, channel, height, width) with any byte strides; which tile is worked on
when, and by which algorithm, was decided in `fastconv.plan`.
"""
from numpy import ndarray
from cpython.buffer cimport PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.pythread cimport PyThread_get_thread_ident
from libc.string cimport memchr, memcpy, memset

cdef extern from "memory.h" nogil:
    void* fc_allocate(size_t bytes)
    void fc_free(void* memory)

cdef extern from *:
    """
    #if defined(_OPENMP)
    #include <omp.h>
    static int fc_openmp_version(void) { return _OPENMP; }
    #if defined(__clang__)
    static const char *fc_openmp_name(void) { return "libomp"; }
    #else
    static const char *fc_openmp_name(void) { return "libgomp"; }
    #endif
    static double fc_seconds(void) { return omp_get_wtime(); }
    /* Several threads may raise the same flag at once. */
    static inline void fc_raise_flag(char *flag) { __atomic_store_n(flag, 1, __ATOMIC_RELAXED); }
    static int fc_openmp_threads(void) { return omp_get_max_threads(); }
    #else
    #error "fastconv needs OpenMP: compile with -fopenmp"
    #endif
    """
    int fc_openmp_version() nogil
    const char* fc_openmp_name() nogil
    double fc_seconds() nogil
    void fc_raise_flag(char* flag) nogil
    int fc_openmp_threads() nogil

cdef extern from "fastconv.h" nogil:
    ctypedef struct fc_segment:
        Py_ssize_t a
        Py_ssize_t b
        Py_ssize_t k
        const void* pick
    ctypedef struct fc_product:
        const void* a
        const Py_ssize_t* a_row
        Py_ssize_t step
        const void* b
        Py_ssize_t ldb
        const fc_segment* segment
        Py_ssize_t segments
        void* c
        const Py_ssize_t* c_row
        int accumulate, relu
        const void* bias
        const void* residual
        const Py_ssize_t* residual_row
        const char* ahead
        Py_ssize_t ahead_step
    ctypedef void (*fc_micro_kernel)(const fc_product*, Py_ssize_t) noexcept nogil
    ctypedef void (*fc_pack)(void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, const char*, Py_ssize_t,
                            Py_ssize_t) noexcept nogil
    ctypedef int (*fc_pack_panel)(void*, Py_ssize_t, const char*, Py_ssize_t, const Py_ssize_t*, Py_ssize_t,
                                  const Py_ssize_t*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
    ctypedef void (*fc_store)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, char*, Py_ssize_t, Py_ssize_t,
                              const void*, int, const char*, Py_ssize_t, Py_ssize_t) noexcept nogil
    ctypedef void (*fc_add)(void*, const void*, Py_ssize_t) noexcept nogil
    ctypedef void (*fc_total_add)(void*, const void*, Py_ssize_t) noexcept nogil
    ctypedef void (*fc_total_end)(void*, const void*, Py_ssize_t) noexcept nogil
    ctypedef double (*fc_burst)(long) noexcept nogil
    ctypedef void (*fc_winograd_input)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, void*, Py_ssize_t,
                                       Py_ssize_t) noexcept nogil
    ctypedef int (*fc_winograd_output)(const void*, Py_ssize_t, int, void*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                                       Py_ssize_t, const void*, int) noexcept nogil
    ctypedef void (*fc_winograd_taps)(const void*, Py_ssize_t, int, void*, Py_ssize_t) noexcept nogil
    ctypedef void (*fc_winograd_weights)(void*, Py_ssize_t, Py_ssize_t, const void*, Py_ssize_t,
                                         Py_ssize_t) noexcept nogil
    ctypedef void (*fc_winograd_pool)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, int, void*,
                                      Py_ssize_t) noexcept nogil
    ctypedef void (*fc_winograd_products)(int, const void*, const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, void*,
                                          Py_ssize_t, Py_ssize_t, int) noexcept nogil
    ctypedef void (*fc_lane)(const void*, const Py_ssize_t*, Py_ssize_t, Py_ssize_t, const void*, Py_ssize_t,
                             const fc_segment*, Py_ssize_t, void*, const Py_ssize_t*, int, const void*,
                             int) noexcept nogil
    ctypedef void (*fc_window)(const void*, Py_ssize_t, Py_ssize_t, const void*, Py_ssize_t, const fc_segment*,
                               Py_ssize_t, void*, Py_ssize_t, const void*, int) noexcept nogil
    ctypedef void (*fc_window_gradient)(const void*, const Py_ssize_t*, Py_ssize_t, const void*, Py_ssize_t,
                                        const fc_segment*, Py_ssize_t, void*, const Py_ssize_t*,
                                        Py_ssize_t) noexcept nogil
    ctypedef void (*fc_spread)(void*, const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, const Py_ssize_t*,
                               const void*) noexcept nogil
    ctypedef struct fc_winograd:
        int tile, step, taps, extent, elements, weights, last
        fc_winograd_input input
        fc_winograd_output output
        fc_winograd_weights transform
        fc_winograd_pool pool
        fc_winograd_products products
        fc_winograd_input gradient
        fc_winograd_taps gradient_taps
    ctypedef void (*fc_strassen_input)(const void*, const Py_ssize_t*, Py_ssize_t, Py_ssize_t, void*, Py_ssize_t,
                                       Py_ssize_t, int) noexcept nogil
    ctypedef void (*fc_strassen_weights)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, void*,
                                         Py_ssize_t) noexcept nogil
    ctypedef void (*fc_strassen_fold)(const void*, Py_ssize_t, void*, Py_ssize_t) noexcept nogil
    ctypedef int (*fc_strassen_output)(const void*, Py_ssize_t, Py_ssize_t, int, void*, const Py_ssize_t*, Py_ssize_t,
                                       Py_ssize_t, const void*, const void*, const Py_ssize_t*, int) noexcept nogil
    ctypedef void (*fc_rows_input)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, void*, Py_ssize_t,
                                   Py_ssize_t) noexcept nogil
    ctypedef int (*fc_rows_output)(const void*, Py_ssize_t, Py_ssize_t, int, void*, Py_ssize_t, Py_ssize_t,
                                   const void*, int) noexcept nogil
    ctypedef struct fc_strassen:
        fc_strassen_input input
        fc_strassen_weights weights
        fc_strassen_fold fold
        fc_strassen_output output
    ctypedef struct fc_lane_kernels "fc_lane_kernels":
        fc_lane lane[3][13]
        fc_window window[6][3][2]
        fc_window_gradient window_gradient[6][3][4]
    ctypedef struct fc_patch_at:
        Py_ssize_t a_y, a_x, b_y, b_x, c_y, c_x
        Py_ssize_t row_lo, row_hi, col_lo, col_hi
        int activation
    ctypedef void (*fc_patch_run)(const void*, const void*, void*, const void*, Py_ssize_t,
                                  const fc_patch_at*) noexcept nogil
    ctypedef struct fc_patch:
        int rows, columns
        fc_patch_run run[5]
    ctypedef struct fc_kernels:
        int dtype
        int size
        int lanes
        int vectors
        int rows[5]
        fc_micro_kernel micro[5][13]
        fc_pack pack[11]
        fc_pack_panel pack_panel[11]
        fc_store store[11]
        fc_add add
        fc_total_add total_add
        fc_total_end total_end
        int lane_vectors
        int picks
        fc_lane_kernels by_lane[2]
        fc_patch patch[6][6][3][2]
        fc_spread spread
        fc_winograd winograd[5]
        fc_strassen strassen[2]
        fc_rows_input rows_input
        fc_rows_output rows_output
    ctypedef struct fc_pool_row:
        const char* x
        Py_ssize_t xh, xw, xc
        char* y
        Py_ssize_t yh, yw, yc
        char* index
        Py_ssize_t iw, ic
        Py_ssize_t channels, height, width, out_width
        Py_ssize_t y0, stride_x, pad_x, kernel_y, kernel_x, dilation_y, dilation_x
        int count_include_pad
        Py_ssize_t divisor, limit_y, limit_x
        Py_ssize_t low
    ctypedef void (*fc_pool_function)(const fc_pool_row*) noexcept nogil
    ctypedef struct fc_pool_kernels:
        fc_pool_function max_row
        fc_pool_function avg_row
        fc_pool_function max_scatter
        fc_pool_function avg_scatter
    ctypedef struct fc_max_pool_gradient:
        void* dx
        const void* x
        const void* y
        const void* dy
        Py_ssize_t channels, pixel, height, width, out_height, out_width
        Py_ssize_t kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x
    ctypedef struct fc_step:
        int code
        const void* operand
        double number
    ctypedef struct fc_layer_kernels:
        void (*elementwise)(void*, const fc_step*, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*relu_gradient)(void*, const void*, const void*, double, Py_ssize_t, Py_ssize_t, void*) noexcept nogil
        void (*products)(const void*, const void*, const void*, const void*, Py_ssize_t, Py_ssize_t, void*,
                         void*) noexcept nogil
        void (*sum)(const void*, Py_ssize_t, Py_ssize_t, void*) noexcept nogil
        void (*affine)(void*, const void*, const void*, const void*, const void*, const void*, int, Py_ssize_t,
                       Py_ssize_t) noexcept nogil
        void (*sgd)(void*, const void*, void*, double, double, double, int, Py_ssize_t) noexcept nogil
        void (*adam)(void*, const void*, void*, void*, double, double, double, double, double,
                     Py_ssize_t) noexcept nogil
        void (*max_pool_gradient)(const fc_max_pool_gradient*) noexcept nogil
        void (*dense)(const void*, Py_ssize_t, Py_ssize_t, const void*, Py_ssize_t, Py_ssize_t, void*) noexcept nogil
    ctypedef struct fc_isa:
        const char* name
        const fc_kernels* compute[4]
        const fc_pool_kernels* pool[11]
        const fc_layer_kernels* layers[2]
        fc_burst fma_burst
    const fc_isa* fc_isa_select(const char*)
    const fc_isa* fc_isa_best()
    const char* fc_isa_built(int)
    int FC_MAX_ROWS, FC_MAX_WINDOW
    int FC_ZEROS, FC_REFLECT, FC_REPLICATE, FC_CIRCULAR, FC_SYMMETRIC

ctypedef Py_ssize_t size

cdef extern from "tasks.h" nogil:
    ctypedef struct fc_watch:
        pass
    ctypedef void (*fc_task)(void*, char*, Py_ssize_t, fc_watch*) noexcept nogil
    ctypedef int (*fc_look)() noexcept nogil
    int FC_FORKED
    int fc_run_tasks(fc_task, void*, char*, Py_ssize_t, Py_ssize_t, int, int, fc_look)
    bint fc_interrupted(fc_watch*)
    void fc_run_alone()
    int fc_room_for_threads()

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept  # -1 leaves an exception behind, which `run_tasks` hands on

cdef unsigned long main_thread = 0  # the one that runs Python's signal handlers


def set_main_thread(unsigned long ident):
    """Let the calls of this thread (`threading.get_ident`) look for signals."""
    global main_thread
    main_thread = ident


def after_fork():
    """Make this thread, the only one of a forked child, its main thread; calls start no others from now on."""
    fc_run_alone()
    set_main_thread(PyThread_get_thread_ident())


cdef int look_for_signals() noexcept nogil:
    with gil:
        return PyErr_CheckSignals()


cdef int run_tasks(fc_task work, void* job, char* scratch, size scratch_bytes, size tasks, int threads,
                   bint even=False) except -1:
    """work(job, scratch of the thread, task, watch) for every task; a signal's handler may raise and end it early.

    Without the GIL, on at most `threads` threads; `even` shares the tasks out beforehand.
    """
    cdef fc_look look = NULL
    cdef int stopped
    if PyThread_get_thread_ident() == main_thread:
        look = look_for_signals
    with nogil:
        stopped = fc_run_tasks(work, job, scratch, scratch_bytes, tasks, threads, even, look)
    if stopped == FC_FORKED:
        raise RuntimeError("a signal's handler forked this process during a call: the child has none of the threads that "
                           "were computing it. Make the call again here.")
    return -1 if stopped else 0


cdef int handle_signals() except -1:
    """Between calls of `run_tasks` that are each too short to look: run the handlers of signals that came."""
    return PyErr_CheckSignals() if PyThread_get_thread_ident() == main_thread else 0


cdef enum:
    PARALLEL_FROM_MACS = 1 << 20   # about 10 microseconds: starting a team costs as much


def threads_for(size macs, int threads):
    """The threads worth starting for so many multiply-adds."""
    return threads if macs >= PARALLEL_FROM_MACS else 1

cdef const fc_isa* isa = fc_isa_best()


cdef extern from *:
    """
    #ifndef FASTCONV_SOURCES
    #define FASTCONV_SOURCES 0
    #endif
    """
    const unsigned long long FASTCONV_SOURCES


def sources():
    """The fingerprint of the sources that this module was built from (`fastconv.built`)."""
    return FASTCONV_SOURCES


def isas_built():
    """Names of the instruction sets compiled in, plainest first."""
    names = []
    cdef int i = 0
    while fc_isa_built(i) != NULL:
        names.append(fc_isa_built(i).decode())
        i += 1
    return tuple(names)


def isas_available():
    """Names of the compiled instruction sets that this machine and its operating system offer."""
    return tuple(name for name in isas_built() if fc_isa_select(name.encode()) != NULL)


def isa_name():
    """Name of the instruction set in use."""
    return isa.name.decode()


def isa_number():
    """Position of the instruction set in use among those built."""
    cdef int i = 0
    while fc_isa_select(fc_isa_built(i)) != isa:
        i += 1
    return i


def isa_use(str name):
    """Switch to an instruction set; False when this machine does not offer it."""
    global isa
    cdef const fc_isa* wanted = fc_isa_select(name.encode())
    if wanted == NULL:
        return False
    isa = wanted
    return True


def openmp_runtime():
    """The OpenMP runtime compiled against, with the date (yyyymm) of the specification it follows."""
    return f"{fc_openmp_name().decode()} ({fc_openmp_version()})"


def room_for_threads():
    """Threads that a call may have as far as is known: what the system had room for when a call last asked for more."""
    return fc_room_for_threads()


def openmp_threads():
    """Threads that OpenMP would give a team of the calling thread: what threadpoolctl sets."""
    return fc_openmp_threads()


def tile_shape(int compute):
    """(bytes of an element, lanes of a vector, vectors of a full panel, rows of a full register tile)."""
    cdef const fc_kernels* kernels = isa.compute[compute]
    return kernels.size, kernels.lanes, kernels.vectors, kernels.rows[kernels.vectors]


def lane_chunk(int compute):
    """(bytes of an element, output channels that the kernels with a lane each compute together)."""
    return isa.compute[compute].size, isa.compute[compute].lane_vectors * isa.compute[compute].lanes


def fma_peak(int threads=1):
    """Measured float32 multiply-add rate of the instruction set in use, in GFLOP/s, on so many threads."""
    cdef double operations, begin, best = 0
    cdef int attempt
    for attempt in range(5):
        operations = 0
        begin = fc_seconds()
        run_tasks(fma_task, &operations, NULL, 0, threads, threads, True)
        best = max(best, threads * operations / (fc_seconds() - begin) * 1e-9)
    return best


cdef void fma_task(void* operations, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef double done = isa.fma_burst(2000000)
    if task == 0:
        (<double*>operations)[0] = done   # as many as in every other


# ---- views ----------------------------------------------------------------------------------------------------

cdef struct View:
    char* p
    size n[4]
    size s[4]


cdef class Arrays:
    """Holds the buffers of one call: 4-D views with byte strides, released together."""
    cdef Py_buffer buffers[8]
    cdef int count   # zero at first, as every C attribute

    cdef int view(self, object array, View* out, bint writable) except -1:
        cdef Py_buffer* buffer = &self.buffers[self.count]
        cdef int axis, first
        if type(array) is not ndarray:   # a subclass may have told Python another shape than its buffer's
            raise TypeError(f"arrays reach native code as plain ndarrays, but got a {type(array).__name__}")
        PyObject_GetBuffer(array, buffer, PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0))
        self.count += 1
        first = 4 - buffer.ndim
        if first < 0:
            raise ValueError("arrays of more than four axes do not reach native code")
        out.p = <char*>buffer.buf
        for axis in range(4):
            out.n[axis] = 1 if axis < first else buffer.shape[axis - first]
            out.s[axis] = 0 if axis < first else buffer.strides[axis - first]
        return 0

    cdef int activation(self, object array, View* out, bint writable, bint channels_last) except -1:
        """(N, C, H, W) of an array that has these axes, or its channels last."""
        self.view(array, out, writable)
        if channels_last:
            out.n[1], out.n[2], out.n[3] = out.n[3], out.n[1], out.n[2]
            out.s[1], out.s[2], out.s[3] = out.s[3], out.s[1], out.s[2]
        return 0

    cdef int weight(self, object array, View* out, bint channels_last) except -1:
        """(O, I, kH, kW) of an array that has these axes, or of (kH, kW, I, O)."""
        self.view(array, out, False)
        if channels_last:
            out.n[0], out.n[1], out.n[2], out.n[3] = out.n[3], out.n[2], out.n[0], out.n[1]
            out.s[0], out.s[1], out.s[2], out.s[3] = out.s[3], out.s[2], out.s[0], out.s[1]
        return 0

    cdef void release(self):
        cdef int i
        for i in range(self.count):
            PyBuffer_Release(&self.buffers[i])
        self.count = 0


cdef void phase_view(View* out, const View* array, size y, size x, size step_y, size step_x) noexcept nogil:
    """array[:, :, y::step_y, x::step_x]."""
    out[0] = array[0]
    out.p = array.p + y * array.s[2] + x * array.s[3]
    out.n[2], out.s[2] = max(0, (array.n[2] - y + step_y - 1) // step_y), array.s[2] * step_y
    out.n[3], out.s[3] = max(0, (array.n[3] - x + step_x - 1) // step_x), array.s[3] * step_x


cdef enum:
    SCRATCH_BYTES = 30 << 20   # of all threads together; 32 MiB is promised

WORKSPACE_BYTES = SCRATCH_BYTES


cpdef size team_for(size threads, size tasks, size scratch_bytes, size beside=0) noexcept:
    """Threads that work at once: no more than tasks, and than have scratch beside so many bytes that all share."""
    return max(1, min(threads, tasks, (SCRATCH_BYTES - beside) // max(1, scratch_bytes)))


cdef void* allocate(size bytes) except NULL:
    cdef void* memory = fc_allocate(bytes)
    if memory == NULL:
        raise MemoryError(f"fastconv could not allocate {bytes} bytes of scratch memory")
    return memory


def lie_apart(a, b):
    """Whether the memory that two arrays span does not overlap."""
    cdef Arrays arrays = Arrays()
    cdef View u, v
    cdef char* low[2]
    cdef char* high[2]
    try:
        arrays.view(a, &u, False)
        arrays.view(b, &v, False)
        span(&u, arrays.buffers[0].itemsize, &low[0], &high[0])
        span(&v, arrays.buffers[1].itemsize, &low[1], &high[1])
        return high[0] <= low[1] or high[1] <= low[0]
    finally:
        arrays.release()


cdef void span(const View* array, size itemsize, char** low, char** high) noexcept nogil:
    """The bytes that an array's elements lie in."""
    cdef int axis
    low[0], high[0] = array.p, array.p + itemsize
    for axis in range(4):
        if array.n[axis] == 0:
            high[0] = low[0]
            return
        if array.s[axis] < 0:
            low[0] += (array.n[axis] - 1) * array.s[axis]
        else:
            high[0] += (array.n[axis] - 1) * array.s[axis]


cdef inline size round_up(size value, size unit) noexcept nogil:
    return (value + unit - 1) // unit * unit


cdef inline size padded_index(size i, size n, int mode) noexcept nogil:
    """Which element of an axis of n lies at position i of its extension; -1 for a skipped zero."""
    cdef size period
    if 0 <= i < n:
        return i
    if mode == FC_ZEROS or n == 0:
        return -1
    if mode == FC_REPLICATE:
        return 0 if i < 0 else n - 1
    period = n if mode == FC_CIRCULAR else 2 * n if mode == FC_SYMMETRIC else max(2 * (n - 1), 1)
    i = i % period
    if i < 0:
        i += period
    if i < n:
        return i
    return 2 * n - 1 - i if mode == FC_SYMMETRIC else period - i


include "drivers/totals.pxi"
include "drivers/weights.pxi"
include "drivers/region.pxi"
include "drivers/direct.pxi"
include "drivers/lanes.pxi"
include "drivers/patches.pxi"
include "drivers/lanes_gradient.pxi"
include "drivers/winograd.pxi"
include "drivers/strassen.pxi"
include "drivers/winograd_rows.pxi"
include "drivers/weight_gradient.pxi"
include "drivers/winograd_gradient.pxi"
include "drivers/pool.pxi"
include "drivers/layers.pxi"
include "drivers/elementwise.pxi"
