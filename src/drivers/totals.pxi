# Long sums: no error grows with their length. A sum of LONG_FROM terms and more is made in blocks, each from zero; the
# blocks are added to totals of twice the precision (total_add in kernels/compute.h), rounded once at the end. Shorter
# sums are one running sum. Integers are exact in any order and need none of this.
#
# Where a block ends follows from shapes alone, so that bits depend neither on threads nor on the batch or the layout.

cdef enum:
    LONG_FROM = 4096      # terms; the stated bound counts no more (docs/accuracy.md)
    SUM_BLOCK = 256       # terms of a block of a convolution: products
    SMALL_BLOCK = 64      # the same of a very long sum or a large kernel, which are of few outputs most often
    VERY_LONG = 65536     # terms
    LARGE_KERNEL = 1024   # taps
    PIXEL_BLOCK = 1000    # pixels of a block of a weight gradient, or of one tile of it
    TILE_BLOCK = 504      # tiles of a block of Winograd's weight gradient
    ROW_BLOCK = 64        # rows of channels of a block (drivers/layers.pxi)
    INPUT_BLOCK = 64      # inputs of a dense layer

LONG_SUM = LONG_FROM


cdef inline bint is_long(const fc_kernels* kernels, size terms) noexcept nogil:
    """Whether a sum of so many terms is made in blocks."""
    return terms >= LONG_FROM and (kernels.sum == FC_F32 or kernels.sum == FC_F64)


cdef inline size block_terms(size taps, size channels) noexcept nogil:
    """The terms of a block of a long sum over so many taps and channels."""
    return SMALL_BLOCK if taps >= LARGE_KERNEL or taps * channels >= VERY_LONG else SUM_BLOCK


cdef inline size totals_bytes(const fc_kernels* kernels, size sums) noexcept nogil:
    """Room for the totals of so many sums."""
    return round_up(2 * sums * kernels.size, 64)
