# Weights packed for the register tile: panels of `vectors * lanes` output channels, inside a panel
# [tap y][tap x][input channel][output lane]. The last panel is as many vectors wide as it needs.


cdef inline size packed_elements(const fc_kernels* kernels, size taps, size channels, size outputs) noexcept nogil:
    return taps * channels * round_up(outputs, kernels.lanes)


def packed_bytes(int compute, size groups, size taps, size channels, size outputs):
    """Bytes that `pack_weights` fills: channels and outputs are those of one group."""
    cdef const fc_kernels* kernels = isa.compute[compute]
    return groups * packed_elements(kernels, taps, channels, outputs) * kernels.size


def pack_weights(int compute, weight, int code, packed, size groups, bint transposed, tuple rows, tuple columns,
                 int threads):
    """Pack `weight` (O, I/groups, kH, kW), any strides, for the taps rows x columns.

    `transposed` swaps the roles of input and output channels, as the input gradient needs. Returns False when a
    weight is NaN or infinite: padded taps must then be skipped instead of multiplied by zero.
    """
    cdef const fc_kernels* kernels = isa.compute[compute]
    cdef View w, to
    cdef Arrays arrays = Arrays()
    cdef size taps_y = len(rows), taps_x = len(columns), i
    cdef size* offsets = NULL
    cdef size outputs, channels, output_stride, channel_stride, width, panels, task, tasks, group, panel, group_elements
    cdef int finite = 1
    try:
        arrays.view(weight, &w, False)
        arrays.view(packed, &to, True)
        offsets = <size*>allocate((taps_y + taps_x) * sizeof(size))
        for i in range(taps_y):
            offsets[i] = <size>rows[i] * w.s[2]
        for i in range(taps_x):
            offsets[taps_y + i] = <size>columns[i] * w.s[3]
        outputs, output_stride, channels, channel_stride = w.n[0] // groups, w.s[0], w.n[1], w.s[1]
        if transposed:
            outputs, output_stride, channels, channel_stride = channels, channel_stride, outputs, output_stride
        width = kernels.vectors * kernels.lanes
        panels = (outputs + width - 1) // width
        group_elements = packed_elements(kernels, taps_y * taps_x, channels, outputs)
        tasks = groups * panels
        with nogil:
            if threads == 1:
                for task in range(tasks):
                    finite &= pack_one_panel(kernels, code, &w, to.p, groups, panels, task, group_elements, width,
                                             taps_y, offsets, taps_x, channels, channel_stride, outputs,
                                             output_stride)
            else:
                for task in prange(tasks, schedule='dynamic', num_threads=threads):
                    finite &= pack_one_panel(kernels, code, &w, to.p, groups, panels, task, group_elements, width,
                                             taps_y, offsets, taps_x, channels, channel_stride, outputs,
                                             output_stride)
        return finite != 0
    finally:
        free(offsets)
        arrays.release()


cdef int pack_one_panel(const fc_kernels* kernels, int code, View* w, char* to, size groups, size panels, size task,
                        size group_elements, size width, size taps_y, size* offsets, size taps_x, size channels,
                        size channel_stride, size outputs, size output_stride) noexcept nogil:
    cdef size group = task // panels, first = task % panels * width
    cdef size count = min(width, outputs - first)
    cdef char* dst = to + (group * group_elements + first * taps_y * taps_x * channels) * kernels.size
    cdef const char* src = w.p + group * (w.n[0] // groups) * w.s[0] + first * output_stride
    return kernels.pack_panel[code](dst, round_up(count, kernels.lanes), src, taps_y, offsets, taps_x,
                                    offsets + taps_y, channels, channel_stride, count, output_stride)
