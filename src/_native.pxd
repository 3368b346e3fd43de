# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# The header of the house: what a driver (drivers/*.pxi) may use, and what it lends to the others.
#
#   fastconv.h, memory.h, tasks.h    kernels and threads: C
#   View, Arrays                     the arrays of a call                             _native.pyx
#   run_tasks, team_for, allocate    threads and scratch                              _native.pyx
#   Work                             native work that waits for its turn              drivers/work.pxi
#   Program                          a convolution that waits for its arrays          _native.pyx
#   Operands                         the arrays of a run of a program                 drivers/operands.pxi
#   Weights                          packed for the register tile                     drivers/weights.pxi
#   pack_region                      the part of the input under a tile of outputs    drivers/region.pxi
#   Ends, direct_block, run_product  products in register tiles                       drivers/product.pxi
#
# Small inline functions are beside what they belong to: is_long, totals_bytes in drivers/totals.pxi, in_elements and
# register_tiles in drivers/product.pxi. Nothing else of one driver is another's.

ctypedef Py_ssize_t size

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
    enum:
        FC_F32, FC_F64, FC_I8, FC_U8, FC_BF16, FC_DTYPES                                      # fc_dtype
        FC_COMPUTE_F32, FC_COMPUTE_F64, FC_COMPUTE_I32, FC_COMPUTE_I64, FC_COMPUTE_I16, FC_COMPUTE_U8
        FC_COMPUTE_F32_F16, FC_COMPUTE_F32_BF16, FC_COMPUTE_BF16, FC_COMPUTE_ROUNDED
        FC_COMPUTES
        LINEAR "FC_LINEAR", RELU "FC_RELU", RELU6 "FC_RELU6"                        # fc_activation: in the registers
        FC_LEAKY_RELU, FC_HARDSWISH, FC_SILU, FC_SIGMOID, FC_TANH, FC_GELU, FC_GELU_TANH
        FC_ZEROS, FC_REFLECT, FC_REPLICATE, FC_CIRCULAR, FC_SYMMETRIC, FC_FILL      # fc_padding_mode
        FC_MAX_VECTORS, FC_MAX_ROWS, FC_WINDOW, FC_MAX_WINDOW, FC_FLAT_TAPS
        FC_WINOGRAD_TILES, FC_WINOGRAD_CHANNELS
        FC_WINOGRAD_STRIDED, FC_WINOGRAD_2, FC_WINOGRAD_4, FC_WINOGRAD_TWO_TAPS, FC_WINOGRAD_STRIDED_4
        FC_WINOGRAD_PHASES, FC_WINOGRAD_PHASES_4
        FC_WINOGRAD_KINDS
    const char* const fc_dtype_names[]
    ctypedef struct fc_segment:
        Py_ssize_t a
        Py_ssize_t b
        Py_ssize_t k
        const void* pick
    ctypedef struct fc_requantise:
        int zero, low, high, is_signed, wide
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
        const fc_requantise* requantise
        const float* multiplier
        void* out
        const Py_ssize_t* out_row
        Py_ssize_t columns
        int fetch
        Py_ssize_t partial
    ctypedef void (*fc_micro_kernel)(const fc_product*, Py_ssize_t) noexcept nogil
    ctypedef void (*fc_pack)(void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, const char*, Py_ssize_t,
                            Py_ssize_t) noexcept nogil
    ctypedef void (*fc_pack_scaled)(void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, const char*, Py_ssize_t, const void*,
                                   const void*, int) noexcept nogil
    ctypedef int (*fc_pack_panel)(void*, Py_ssize_t, const char*, Py_ssize_t, const Py_ssize_t*, Py_ssize_t,
                                  const Py_ssize_t*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
    ctypedef void (*fc_widen)(void*, const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
    ctypedef void (*fc_store)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, char*, Py_ssize_t, Py_ssize_t,
                              const void*, int, const char*, Py_ssize_t, Py_ssize_t) noexcept nogil
    ctypedef void (*fc_requantised_store)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, char*, Py_ssize_t,
                                          Py_ssize_t, const void*, const fc_requantise*, const float*) noexcept nogil
    ctypedef void (*fc_add)(void*, const void*, Py_ssize_t) noexcept nogil
    ctypedef int (*fc_holds_nan)(const void*, Py_ssize_t) noexcept nogil
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
    enum:
        FC_WINOGRAD_SHORTS
    ctypedef struct fc_winograd:
        int tile, step, taps, extent, elements, weights, last, shorts
        int without[FC_WINOGRAD_SHORTS + 1]
        fc_winograd_input input[FC_WINOGRAD_SHORTS + 1][FC_WINOGRAD_SHORTS + 1]
        fc_winograd_output output[FC_WINOGRAD_SHORTS + 1][FC_WINOGRAD_SHORTS + 1]
        fc_winograd_weights transform
        fc_winograd_pool pool
        fc_winograd_products products
        fc_winograd_input gradient
        fc_winograd_taps gradient_taps
    ctypedef void (*fc_flat)(const void*, const Py_ssize_t*, const void*, Py_ssize_t, Py_ssize_t, const void*, int, void*,
                             Py_ssize_t) noexcept nogil
    ctypedef struct fc_plane_window:
        const void* x
        void* y
        const void* w
        const void* bias
        Py_ssize_t x_row, y_row, ldw, height, width, rows, columns, first_y, first_x, dilation
        int relu
    ctypedef void (*fc_plane_kernel)(const fc_plane_window*) noexcept nogil
    ctypedef struct fc_shifted:
        const void* a
        const void* b
        const void* bias
        void* c
        const Py_ssize_t* shift
        Py_ssize_t steps, rows, width, c_row
        int relu, fetch
    ctypedef struct fc_phases:
        const void* end
        Py_ssize_t channel, channels, width, first, stride, phases, count, apart
    ctypedef struct fc_extra:
        const char* name
        const void* table
    ctypedef struct fc_lane_kernels "fc_lane_kernels":
        fc_lane lane[3][FC_MAX_ROWS + 1]
        fc_window window[FC_MAX_WINDOW + 1][3][2]
        fc_window_gradient window_gradient[FC_MAX_WINDOW + 1][3][4]
    ctypedef struct fc_patch_at:
        Py_ssize_t a_z, a_y, a_x, b_z, b_y, b_x, c_y, c_x
        Py_ssize_t planes
        int activation
        Py_ssize_t row_lo, row_hi, col_lo, col_hi
        Py_ssize_t rows, taps, block, a_p
        const unsigned int* inside
        Py_ssize_t before
    ctypedef void (*fc_patch_run)(const void*, const void*, void*, const void*, Py_ssize_t,
                                  const fc_patch_at*) noexcept nogil
    ctypedef struct fc_patch:
        int rows, columns
        fc_patch_run run[5]
        fc_patch_run shared[5]
    ctypedef struct fc_kernels:
        int input, weight, sum
        int input_size, weight_size, size
        int tile_k
        int lanes
        int vectors
        int rows[2 * FC_MAX_VECTORS + 1]
        fc_micro_kernel micro[2 * FC_MAX_VECTORS + 1][FC_MAX_ROWS + 1]
        bint partial
        fc_pack pack[FC_DTYPES]
        fc_pack_scaled pack_scaled
        fc_pack_panel pack_panel[FC_DTYPES]
        fc_widen widen
        fc_store store[FC_DTYPES]
        fc_requantised_store requantise
        fc_add add
        fc_holds_nan holds_nan
        fc_total_add total_add
        fc_total_end total_end
        int lane_vectors
        int picks
        fc_lane_kernels by_lane[2]
        fc_patch patch[FC_MAX_WINDOW + 1][FC_MAX_WINDOW + 1][3][2]
        int strip_taps
        fc_patch_run strip[3][FC_WINDOW + 1]
        fc_patch_run strip_shared[FC_WINDOW + 1]
        void (*strip_copy)(void*, const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
        fc_flat flat
        fc_flat flat_window[FC_FLAT_TAPS + 1]
        fc_plane_kernel plane_window[FC_FLAT_TAPS + 1][3]
        void (*flat_rows)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, const void*, void*, Py_ssize_t) noexcept nogil
        void (*flat_split)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, const void*, void*, void*,
                           Py_ssize_t) noexcept nogil
        void (*flat_store)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, void*) noexcept nogil
        void (*flat_fill)(const void*, Py_ssize_t, Py_ssize_t, void*) noexcept nogil
        void (*shifted[FC_MAX_VECTORS + 1])(const fc_shifted*) noexcept nogil
        void (*phases)(const fc_phases*, const void*, void*) noexcept nogil
        fc_spread spread
        fc_winograd winograd[FC_WINOGRAD_KINDS]
        const fc_extra* extras
    enum:
        FC_FEW
    ctypedef struct fc_few:
        const char* x
        char* y
        const void* weight
        const void* bias
        Py_ssize_t x_pixel, y_pixel, channels, pixels
        int relu
    ctypedef struct fc_few_kernels:
        Py_ssize_t most
        void (*outputs[FC_FEW + 1])(const fc_few*) noexcept nogil
        void (*point)(const fc_few*) noexcept nogil
    ctypedef struct fc_byte_tiles:
        Py_ssize_t channels
        void (*input)(const unsigned char* const*, Py_ssize_t, int, unsigned char*, Py_ssize_t) noexcept nogil
        void (*output[FC_MAX_VECTORS + 1])(const int*, Py_ssize_t, const fc_product*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                                           Py_ssize_t) noexcept nogil
    ctypedef struct fc_pool_row:
        const char* x
        Py_ssize_t xd, xh, xw, xc
        char* y
        Py_ssize_t yd, yh, yw, yc
        char* index
        Py_ssize_t iw, ic
        Py_ssize_t channels, depth, height, width, out_width
        Py_ssize_t z0, y0, stride_x, pad_x, kernel_z, kernel_y, kernel_x, dilation_z, dilation_y, dilation_x
        int count_include_pad
        Py_ssize_t divisor, limit_z, limit_y, limit_x
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
    enum:
        FC_JOIN_SUM, FC_JOIN_SQUARES, FC_JOIN_MAGNITUDES, FC_JOIN_MAX, FC_JOIN_MIN   # fc_join
        FC_MOST_COLUMNS
    ctypedef struct fc_row_kernels:
        void (*blend)(void*, const void* const*, const void*, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*pick)(void*, Py_ssize_t, const void*, const Py_ssize_t*, const void*, Py_ssize_t,
                     Py_ssize_t) noexcept nogil
        void (*join)(int, const char*, Py_ssize_t, Py_ssize_t, Py_ssize_t, void*) noexcept nogil
        void (*join_line)(int, const char*, Py_ssize_t, void*) noexcept nogil
        void (*place)(int, int, const char*, Py_ssize_t, Py_ssize_t, Py_ssize_t, void*, void*) noexcept nogil
    ctypedef struct fc_norm_kernels:
        void (*softmax)(void*, const void*, Py_ssize_t, int) noexcept nogil
        void (*column_softmax)(void*, const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, int) noexcept nogil
        void (*moments)(const void*, Py_ssize_t, int, double*) noexcept nogil
        void (*column_moments)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*, double*) noexcept nogil
        void (*normalise)(void*, const void*, Py_ssize_t, double, double, const void*, const void*,
                          double) noexcept nogil
        void (*column_normalise)(void*, const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, const void*, const void*,
                                 const void*) noexcept nogil
        void (*lstm)(void*, const void*, void*, void*, Py_ssize_t, int) noexcept nogil
        void (*gru)(void*, const void*, void*, Py_ssize_t) noexcept nogil
    enum:
        FC_BYTES_BLOCK, FC_BYTES_OUTPUTS
    ctypedef struct fc_byte_sum:
        int zero_a, zero_b, zero, low, high, flip
        float scale_a, scale_b, scale
    ctypedef struct fc_depthwise_row:
        const char* const* row
        Py_ssize_t column, columns, first, rows, taps, stride, dilation, channels
        int flip, fill
        const void* weights
        const int* shift
        const float* multiplier
        const fc_requantise* requantise
        char* out
        Py_ssize_t out_column, outputs
        void* scratch
    ctypedef struct fc_byte_kernels:
        void (*add)(unsigned char*, const unsigned char*, const unsigned char*, Py_ssize_t,
                    const fc_byte_sum*) noexcept nogil
        void (*multiply)(unsigned char*, const unsigned char*, const float*, Py_ssize_t,
                         const fc_byte_sum*) noexcept nogil
        void (*quantise)(unsigned char*, const float*, Py_ssize_t, const fc_byte_sum*) noexcept nogil
        void (*dequantise)(float*, const unsigned char*, Py_ssize_t, const fc_byte_sum*) noexcept nogil
        void (*look_up)(unsigned char*, const unsigned char*, Py_ssize_t, const unsigned char*) noexcept nogil
        void (*sum)(int*, const unsigned char*, Py_ssize_t, Py_ssize_t, Py_ssize_t, int) noexcept nogil
        void (*depthwise)(const fc_depthwise_row*) noexcept nogil
        fc_pack transpose
        int groups
        void (*depthwise_four[3])(const fc_depthwise_row*) noexcept nogil
    ctypedef struct fc_isa:
        const char* name
        const fc_kernels* compute[FC_COMPUTES]
        const fc_pool_kernels* pool[FC_DTYPES]
        const fc_layer_kernels* layers[2]
        const fc_row_kernels* rows[2]
        const fc_norm_kernels* norms[2]
        const fc_byte_kernels* bytes
        fc_burst fma_burst
    const fc_isa* fc_isa_select(const char*)
    const fc_isa* fc_isa_best()
    const char* fc_isa_built(int)

cdef extern from "tasks.h" nogil:
    ctypedef struct fc_watch:
        pass
    ctypedef void (*fc_task)(void*, char*, Py_ssize_t, fc_watch*) noexcept nogil
    ctypedef int (*fc_look)() noexcept nogil
    int FC_FORKED
    ctypedef struct fc_call:
        fc_task work
        void* job
        char* scratch
        Py_ssize_t scratch_bytes, tasks, sites
        int team, even
        fc_look look
    int fc_run_tasks(const fc_call*)
    bint fc_interrupted(fc_watch*)
    void fc_run_alone()
    ctypedef void (*fc_parallel)(void (*)(void*), void*, unsigned, unsigned) noexcept nogil
    ctypedef int (*fc_number)() noexcept nogil
    void fc_use_threads_of(fc_parallel, fc_number, fc_number, fc_number)
    int fc_room_for_threads()


# ---- arrays -------------------------------------------------------------------------------------------------------

cdef struct View:
    char* p
    size n[5]      # N, C, H, W and the depth: 1 where there is none
    size s[5]      # bytes


cdef class Arrays:
    cdef Py_buffer buffers[8]
    cdef int count   # zero at first, as every C attribute

    cdef int view(self, object array, View* out, bint writable) except -1
    cdef int activation(self, object array, View* out, bint writable, bint channels_last) except -1
    cdef int weight(self, object array, View* out, bint channels_last) except -1
    cdef const Py_buffer* take(self, object array, bint writable) except NULL
    cdef const Py_buffer* hold(self, object array, bint writable) except NULL
    cdef int lay(self, const Py_buffer* buffer, View* out, int first, int second, int spatial, int axes) except -1
    cdef void release(self)


cdef void phase_view(View* out, const View* array, size y, size x, size step_y, size step_x, size z=*,
                     size step_z=*) noexcept nogil
cdef size elements(const View* array) noexcept nogil
cdef int three(numbers, size* to) except -1    # numbers of Python, of planes, rows and columns


cdef inline size length(const View* array, int axis) noexcept nogil:
    """Planes, rows or columns of an array, which are the axes 0, 1 and 2 of what is counted in threes."""
    return array.n[4 if axis == 0 else axis + 1]


cdef inline size volume(const size* shape) noexcept nogil:
    return shape[0] * shape[1] * shape[2]


cdef inline size round_up(size value, size unit) noexcept nogil:
    return (value + unit - 1) // unit * unit


cdef inline size piece(size* total, size bytes) noexcept nogil:
    """A piece of a thread's scratch in whole cache lines, added to the total as it is: 64 bytes more for each do for all."""
    total[0] += bytes
    return round_up(bytes, 64)


# ---- threads and scratch ------------------------------------------------------------------------------------------

cdef const fc_isa* isa     # the instruction set in use

cdef enum:
    PARALLEL_FROM_MACS = 1 << 20   # about 10 microseconds: starting a team costs as much
    FEW_PIXELS = 4                 # fewer are bound by the memory of the weights
    FLAT_VECTORS = 8               # that kernels/flat.h may read and write, whole, for a few numbers
    SCRATCH_BYTES = 30 << 20       # of all threads together; 32 MiB is promised

cdef int run_tasks(fc_task work, void* job, char* scratch, size scratch_bytes, size tasks, int threads,
                   bint even=*) except -1
cdef int handle_signals() except -1
cpdef size team_for(size threads, size tasks, size scratch_bytes, size beside=*) noexcept
cdef void* allocate(size bytes) except NULL


# ---- work ---------------------------------------------------------------------------------------------------------

ctypedef void (*fc_begin)(void* job, char* scratch, size scratch_bytes, int threads) noexcept nogil

cdef struct NetStep              # drivers/net.pxi

cdef enum:
    FEW_PLACES = 8      # pointers into arrays of a work, at first
    OWNED_AT = 64       # bytes of a piece of memory before what is asked for: which piece is the next


cdef class Work(Arrays):
    cdef fc_task task
    cdef fc_begin begin          # of the scratch of all threads, before the tasks; NULL: nothing to begin
    cdef void* job
    cdef size tasks, scratch_bytes
    cdef size sites              # as fc_call has them
    cdef int threads
    cdef bint even
    cdef char** flags            # where the job expects `flag_count` flags; NULL: it raises none
    cdef size flag_count
    cdef void* owned             # pieces of memory, one after the other
    cdef void* late              # memory that the job takes when it first needs it, or NULL
    cdef char*** places          # pointers of the job into arrays, which may be made to point into others that lie alike
    cdef char** few_places[FEW_PLACES]
    cdef int place_count, place_room
    cdef bint fixed              # it holds a pointer into its arrays that is no place
    cdef readonly bint flagged   # by its last run
    cdef object keep             # whose memory the job points into, too

    cdef void* own(self, size bytes) except NULL
    cdef int place(self, char** at) except -1
    cdef int team(self, int threads) except -1
    cdef size memory(self) noexcept nogil
    cdef void fill(self, NetStep* step) noexcept nogil
    cdef void let_go(self, size first, size end) noexcept
    cdef bint meets(self, size first, size end) noexcept


# ---- programs -----------------------------------------------------------------------------------------------------

cdef class Program:
    cdef const fc_kernels* kernels     # those of the instruction set in use when the program was made
    cdef int input, weight, result     # fc_dtype

    cdef int compute_with(self, codes) except -1
    cdef bint makes_bytes(self) noexcept
    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads)


cdef struct Operands:          # the arrays of a run
    View x, y, residual
    const char* bias           # NULL: none
    bint has_residual
    int activation


cdef struct Phase:             # outputs that a pass writes: every step-th from the first on
    size first_y, first_x, step_y, step_x
    size size_y, size_x        # how many


cdef int bind_operands(Operands* o, Arrays arrays, x, bias, residual, y, int activation, bint channels_last) except -1
cdef void bind_phase(Operands* o, const Phase* phase) noexcept nogil
cdef int read_phase(Phase* phase, p, extent) except -1
cdef int places_of(Work work, View* x, View* y, View* residual, bint has_residual) except -1
cdef const char* transformed_weights(Work work, packed) except? NULL
cdef int even_taps(taps, size* first, size* apart) except -1


# ---- weights ------------------------------------------------------------------------------------------------------

cdef struct Weights:
    const fc_kernels* kernels
    const char* packed       # all panels; NULL: packed when used, from `array`
    bint finite              # of the packed ones: none is NaN or infinite
    View array
    int code
    size groups, channels, outputs, width, panels   # channels and outputs of one group
    size steps               # that the channels of a tap take: whole tiles along k
    size taps[3]             # planes, rows and columns
    size channel_stride, output_stride
    size group_elements
    size* offsets            # bytes of every tap plane, then of every tap row, then of every tap column

cdef int bind_weights(Work work, Weights* w, const fc_kernels* kernels, const View* array, int code, const char* packed,
                      bint finite, size groups, bint transposed, const size* taps, const size* places) except -1
cdef int bind_taps(Work work, Weights* w, const fc_kernels* kernels, const View* array, int code, const char* packed,
                   size groups, bint transposed, tuple rows, tuple columns, tuple planes=*) except -1
cdef void pack_steps(const Weights* w, size group, size panel, size first, size last, char* dst) noexcept nogil


# ---- regions and products -----------------------------------------------------------------------------------------

cdef void fill_padding(const fc_kernels* kernels, char* dst, size elements, int mode) noexcept nogil
cdef void pack_region(const fc_kernels* kernels, int code, const View* x, size image, size channel, size channels,
                      size first_row, size row_step, size rows, size first_column, size column_step, size columns,
                      size pitch, int mode, size ld, char* dst) noexcept nogil
cdef void pack_planes(const fc_kernels* kernels, int code, const View* x, size image, size channel, size channels,
                      const size* first, const size* step, const size* shape, size plane, size pitch, int mode, size ld,
                      char* dst) noexcept nogil

cdef struct Ends:              # what follows a sum while it is in the registers
    const char* bias           # as wide as the panel, or NULL
    const char* residual
    const size* residual_row
    int relu                   # LINEAR, RELU or RELU6
    const fc_requantise* requantise   # of short integers: NULL, or how bytes of the first `columns` sums go to `out`
    const float* multiplier
    char* out
    const size* out_row
    size columns
    bint fetch                 # the lines that the sums are written to, before they are
    size partial               # columns of the last vector that are written; 0: all
    const char* coming         # memory that is used after this, and how much of it is to be fetched meanwhile
    size coming_bytes

cdef void direct_block(const fc_kernels* kernels, const char* a, const size* a_row, const char* b, size vectors,
                       size width, const fc_segment* segments, size count, size pixels, char* c, const size* c_row,
                       const Ends* ends, bint first, bint last) noexcept nogil
cdef void run_product(const fc_kernels* kernels, fc_product* product, size vectors, size count,
                      size steps, const char* coming=*, size coming_bytes=*) noexcept nogil
cdef void lay_out(size* at, size rows, size columns, size row_step, size pixel_step) noexcept nogil
cdef void lay_out_tile(size* at, size images, size image_step, const size* shape, size plane_step, size row_step,
                       size pixel_step) noexcept nogil
