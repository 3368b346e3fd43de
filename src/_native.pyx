# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""The only door between Python and native code: buffers in, numbers in, exceptions out.

Arrays come with one, two or three spatial axes and any byte strides; which tile is worked on when, and by which
algorithm, was decided in `fastconv.plan`.
"""
from numpy import empty_like, ndarray
from cpython.buffer cimport PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport fabs, rint, sqrt
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strcmp

cdef extern from "Python.h":
    int get_buffer "PyObject_GetBuffer"(object, Py_buffer*, int) noexcept  # leaves an exception behind
    void PyErr_Clear() noexcept
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


cdef fc_look own_look() noexcept:
    """How this thread looks for signals: only Python's main thread runs their handlers."""
    return look_for_signals if PyThread_get_thread_ident() == main_thread else <fc_look>NULL


cdef int run_tasks(fc_task work, void* job, char* scratch, size scratch_bytes, size tasks, int threads,
                   bint even=False) except -1:
    """work(job, scratch of the thread, task, watch) for every task; a signal's handler may raise and end it early.

    Without the GIL, on at most `threads` threads; `even` shares the tasks out beforehand.
    """
    cdef fc_call call = fc_call(work, job, scratch, scratch_bytes, tasks, 0, threads, even, own_look())
    cdef int stopped
    with nogil:
        stopped = fc_run_tasks(&call)
    return raise_stopped(stopped)


cdef int raise_stopped(int stopped) except -1:
    """What a signal's handler raised, if it ended a job."""
    if stopped == FC_FORKED:
        raise RuntimeError("a signal's handler forked this process during a call: the child has none of the threads that "
                           "were computing it. Make the call again here.")
    return -1 if stopped else 0


cdef int handle_signals() except -1:
    """Between calls of `run_tasks` that are each too short to look: run the handlers of signals that came."""
    return PyErr_CheckSignals() if PyThread_get_thread_ident() == main_thread else 0


def threads_for(size macs, int threads, size pixels=FEW_PIXELS):
    """The threads worth starting for so many multiply-adds, of so many outputs of a channel."""
    return threads if worth_of(macs, pixels) >= PARALLEL_FROM_MACS else 1


cdef inline size worth_of(size macs, size pixels) noexcept nogil:
    """Multiply-adds that take as long: of few pixels every weight comes from memory for one or two products. While one
    comes (22 GB/s a thread), a register tile makes 16 to 20 (Zen 4)."""
    return macs if pixels >= FEW_PIXELS else 16 * macs


isa = fc_isa_best()


cdef extern from *:
    """
    #ifndef FASTCONV_SOURCES
    #define FASTCONV_SOURCES 0
    #endif
    """
    const unsigned long long FASTCONV_SOURCES


def sources():
    """The fingerprint of the sources that this module was built from (`fastconv._core.built`)."""
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


def use_threads_of(size_t parallel, size_t seat, size_t inside, size_t most):
    """From now on jobs run on another library's threads: the addresses of GOMP_parallel, omp_get_thread_num,
    omp_in_parallel and omp_get_max_threads of the OpenMP that it uses; zeros for our own."""
    fc_use_threads_of(<fc_parallel>parallel, <fc_number>seat, <fc_number>inside, <fc_number>most)


def openmp_threads():
    """Threads that OpenMP would give a team of the calling thread: what threadpoolctl sets."""
    return fc_openmp_threads()


# The numbers of fastconv.h by the names that Python knows them by.
DTYPES = {(<bytes>fc_dtype_names[code]).decode(): code for code in range(FC_DTYPES)}
COMPUTES = {
    "float32": FC_COMPUTE_F32, "float64": FC_COMPUTE_F64, "int32": FC_COMPUTE_I32, "int64": FC_COMPUTE_I64,
    "int16": FC_COMPUTE_I16, "uint8": FC_COMPUTE_U8,
    "float32 by float16": FC_COMPUTE_F32_F16, "float32 by bfloat16": FC_COMPUTE_F32_BF16, "bfloat16": FC_COMPUTE_BF16,
    "rounded float32": FC_COMPUTE_ROUNDED,
}
ACTIVATIONS = {
    None: LINEAR, "relu": RELU, "relu6": RELU6, "leaky_relu": FC_LEAKY_RELU, "silu": FC_SILU, "sigmoid": FC_SIGMOID,
    "hardswish": FC_HARDSWISH, "tanh": FC_TANH, "gelu": FC_GELU, "gelu_tanh": FC_GELU_TANH,
}
PADDING_MODES = {
    "zeros": FC_ZEROS, "reflect": FC_REFLECT, "replicate": FC_REPLICATE, "circular": FC_CIRCULAR,
    "symmetric": FC_SYMMETRIC,
}
FILL = FC_FILL   # + n: padding with the integer n
WINOGRAD_CHANNELS = FC_WINOGRAD_CHANNELS   # packed together
WINOGRAD_FEW = FC_WINOGRAD_TILES           # tiles whose weights are transformed in registers together


def winograd_kinds():
    """The kinds of Winograd by name: (number, outputs of a tile, stride, taps, products, different transformed weights,
    inputs of a tile, products of a last tile by its outputs, 0 for all), along each axis; a stride of 0 where there
    are several outputs for an input."""
    cdef const fc_winograd* kind
    kinds = {}
    for name, number in (("2x2", FC_WINOGRAD_2), ("4x4", FC_WINOGRAD_4), ("2x2 at stride 2", FC_WINOGRAD_STRIDED),
                         ("4x4 at stride 2", FC_WINOGRAD_STRIDED_4), ("2x2 of two taps", FC_WINOGRAD_TWO_TAPS),
                         ("2x2 of every phase", FC_WINOGRAD_PHASES), ("4x4 of every phase", FC_WINOGRAD_PHASES_4)):
        kind = &isa.compute[<int>FC_COMPUTE_F32].winograd[<int>number]
        last = tuple(kind.elements - (bin(tile_axis(kind, rest).without).count("1") if rest else 0)
                     for rest in range(kind.tile))
        kinds[name] = number, kind.tile, kind.step // kind.tile, kind.taps, kind.elements, kind.weights, kind.extent, last
    return kinds


def computes(int compute):
    """Whether the instruction set in use has kernels that compute so (fc_compute)."""
    return isa.compute[compute] != NULL


def interleaves_rows():
    """Whether it multiplies four rows of a depthwise kernel of bytes at a time."""
    return isa.bytes.groups != 0


def multiplies_bfloat16():
    """Whether the instruction set in use multiplies bfloat16 itself, and does not only round to it."""
    return isa.compute[<int>FC_COMPUTE_BF16].input == FC_BF16


def tile_shape(int compute):
    """(bytes of an element, lanes of a vector, vectors of a full panel, rows of a full register tile)."""
    cdef const fc_kernels* kernels = isa.compute[compute]
    return kernels.size, kernels.lanes, kernels.vectors, kernels.rows[kernels.vectors]


def operands_of(int compute):
    """(bytes of an element of packed inputs, of packed weights, steps of the reduction that lie side by side)."""
    cdef const fc_kernels* kernels = isa.compute[compute]
    return kernels.input_size, kernels.weight_size, kernels.tile_k


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

cdef class Arrays:
    """Holds the buffers of one call, which are released together, and makes views of them.

    Arrays have one, two or three spatial axes; those that are missing have size 1. An array of one or two axes in all
    is the columns, or rows and columns, of a view.
    """

    cdef int view(self, object array, View* out, bint writable) except -1:
        """(N, C, H, W, D) of an array with the axes N, C, then [[D,] H,] W."""
        cdef const Py_buffer* buffer = self.take(array, writable)
        if buffer.ndim < 3:
            return self.lay(buffer, out, -1, -1, 0, buffer.ndim)
        return self.lay(buffer, out, 0, 1, 2, buffer.ndim - 2)

    cdef int activation(self, object array, View* out, bint writable, bint channels_last) except -1:
        """The same, or of an array whose channels are its last axis."""
        cdef const Py_buffer* buffer
        if not channels_last:
            return self.view(array, out, writable)
        buffer = self.take(array, writable)
        return self.lay(buffer, out, 0, buffer.ndim - 1, 1, buffer.ndim - 2)

    cdef int weight(self, object array, View* out, bint channels_last) except -1:
        """(O, I, kH, kW, kD) of an array with the axes O, I, then the kernel's, or with the kernel's, then I, O."""
        cdef const Py_buffer* buffer
        if not channels_last:
            return self.view(array, out, False)
        buffer = self.take(array, False)
        return self.lay(buffer, out, buffer.ndim - 1, buffer.ndim - 2, 0, buffer.ndim - 2)

    cdef const Py_buffer* take(self, object array, bint writable) except NULL:
        """The buffer of an array that can be seen as a view."""
        cdef const Py_buffer* buffer = self.hold(array, writable)
        if buffer.ndim > 5:
            raise ValueError("arrays of more than five axes do not reach native code")
        return buffer

    cdef const Py_buffer* hold(self, object array, bint writable) except NULL:
        """The buffer of an array of any axes."""
        cdef Py_buffer* buffer = &self.buffers[self.count]
        if type(array) is not ndarray:   # a subclass may have told Python another shape than its buffer's
            raise TypeError(f"arrays reach native code as plain ndarrays, but got a {type(array).__name__}")
        if get_buffer(array, buffer, PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0)) < 0:
            # NumPy lends no memory of a type of another package, such as bfloat16: of its bits
            PyErr_Clear()
            array = array.view(f"u{array.itemsize}")
            PyObject_GetBuffer(array, buffer, PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0))
        self.count += 1
        return buffer

    cdef int lay(self, const Py_buffer* buffer, View* out, int first, int second, int spatial, int axes) except -1:
        """A view whose axes N and C are the buffer's `first` and `second`, and the rest `axes` from `spatial` on."""
        cdef int axis
        cdef int[5] of
        of[0], of[1] = first, second
        of[3] = spatial + axes - 1 if axes > 0 else -1
        of[2] = spatial + axes - 2 if axes > 1 else -1
        of[4] = spatial if axes > 2 else -1
        out.p = <char*>buffer.buf
        for axis in range(5):
            out.n[axis] = 1 if of[axis] < 0 else buffer.shape[of[axis]]
            out.s[axis] = 0 if of[axis] < 0 else buffer.strides[of[axis]]
        return 0

    cdef void release(self):
        cdef int i
        for i in range(self.count):
            PyBuffer_Release(&self.buffers[i])
        self.count = 0

    def __dealloc__(self):
        self.release()


cdef void phase_view(View* out, const View* array, size y, size x, size step_y, size step_x, size z=0,
                     size step_z=1) noexcept nogil:
    """array[:, :, z::step_z, y::step_y, x::step_x]."""
    out[0] = array[0]
    out.p = array.p + y * array.s[2] + x * array.s[3] + z * array.s[4]
    out.n[2], out.s[2] = max(0, (array.n[2] - y + step_y - 1) // step_y), array.s[2] * step_y
    out.n[3], out.s[3] = max(0, (array.n[3] - x + step_x - 1) // step_x), array.s[3] * step_x
    out.n[4], out.s[4] = max(0, (array.n[4] - z + step_z - 1) // step_z), array.s[4] * step_z


cdef size elements(const View* array) noexcept nogil:
    return array.n[0] * array.n[1] * array.n[2] * array.n[3] * array.n[4]


cdef inline bint side_by_side(const View* array, size unit) noexcept nogil:
    """Whether the channels of a pixel lie side by side in memory. The stride of an axis of length 1 says nothing: NumPy lends
    an array that is contiguous either way with strides of its own making."""
    return array.n[1] == 1 or array.s[1] == unit


cdef int three(numbers, size* to) except -1:
    to[0], to[1], to[2] = numbers
    return 0


WORKSPACE_BYTES = SCRATCH_BYTES


cpdef size team_for(size threads, size tasks, size scratch_bytes, size beside=0) noexcept:
    """Threads that work at once: no more than tasks, and than have scratch beside so many bytes that all share."""
    return max(1, min(threads, tasks, (SCRATCH_BYTES - beside) // max(1, scratch_bytes)))


cdef void* allocate(size bytes) except NULL:
    cdef void* memory = fc_allocate(bytes)
    if memory == NULL:
        raise MemoryError(f"fastconv could not allocate {bytes} bytes of scratch memory")
    return memory


cdef enum:
    FC_FILL_FROM = FC_FILL - 32768


cdef inline size padded_index(size i, size n, int mode) noexcept nogil:
    """Which element of an axis of n lies at position i of its extension; -1 for a skipped zero."""
    cdef size period
    if 0 <= i < n:
        return i
    if mode == FC_ZEROS or mode >= FC_FILL_FROM or n == 0:
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


# ---- programs -------------------------------------------------------------------------------------------------

cdef class Program:
    """A convolution with every number resolved but the arrays: made once, run many times, by several threads at once.

    Every program has `run(x, weight, packed, bias, residual, y, activation, channels_last, threads)`, which is `bind` of
    the same and then the work that it gives, and `scratch_bytes(...)` of one thread. `codes` has the attributes `compute`
    (fc_compute), `input`, `weight` and `result` (fc_dtype).
    """

    cdef int compute_with(self, codes) except -1:
        self.kernels = isa.compute[<int>codes.compute]
        self.input, self.weight, self.result = codes.input, codes.weight, codes.result
        if (self.kernels.pack[self.input] == NULL or self.kernels.pack_panel[self.weight] == NULL
                or (self.kernels.store[self.result] == NULL and not self.makes_bytes())):
            raise TypeError(f"no kernels read and write the element types of {codes}")
        return 0

    cdef bint makes_bytes(self) noexcept:
        """Of sums of integers, for runs that say how."""
        return self.kernels.requantise != NULL and (self.result == FC_I8 or self.result == FC_U8)

    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        """The work of a run."""
        raise NotImplementedError

    def run(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        """y = activation(convolution(x, weight) + bias + residual). Returns None or, of a fast method, where an output is
        not finite, bytes that say in which parts.

        `channels_last`: x, y, residual are (N, [[D,] H,] W, C) and weight ([[kD,] kH,] kW, I, O), else (N, C, ...) and
        (O, I, ...). Raises MemoryError before anything is written.
        """
        return self.bind(x, weight, packed, bias, residual, y, activation, channels_last, threads).run()


include "drivers/net.pxi"
include "drivers/planned.pxi"
include "drivers/work.pxi"
include "drivers/totals.pxi"
include "drivers/weights.pxi"
include "drivers/region.pxi"
include "drivers/product.pxi"
include "drivers/operands.pxi"
include "drivers/direct.pxi"
include "drivers/direct_geometry.pxi"
include "drivers/direct_sums.pxi"
include "drivers/scattered.pxi"
include "drivers/planes.pxi"
include "drivers/shifted.pxi"
include "drivers/few.pxi"
include "drivers/point.pxi"
include "drivers/few_taps.pxi"
include "drivers/lanes.pxi"
include "drivers/flat.pxi"
include "drivers/patches.pxi"
include "drivers/strips.pxi"
include "drivers/pairs.pxi"
include "drivers/transposed_patches.pxi"
include "drivers/lanes_gradient.pxi"
include "drivers/winograd.pxi"
include "drivers/strassen.pxi"
include "drivers/winograd_rows.pxi"
include "drivers/winograd_lines.pxi"
include "drivers/winograd_lines_weights.pxi"
include "drivers/fourier.pxi"
include "drivers/axis.pxi"
include "drivers/weight_gradient.pxi"
include "drivers/winograd_gradient.pxi"
include "drivers/pool.pxi"
include "drivers/layers.pxi"
include "drivers/elementwise.pxi"
include "drivers/move.pxi"
include "drivers/reduce.pxi"
include "drivers/resize.pxi"
include "drivers/matmul.pxi"
include "drivers/norms.pxi"
include "drivers/cells.pxi"
include "drivers/bytes.pxi"
include "drivers/winograd_bytes.pxi"
