# A pointwise (1x1) convolution and the depthwise one behind it, in bands of rows: what the first makes of a band lies in
# scratch memory, in the second-level cache, when the second reads it. Where the map between them is large, it neither goes
# to memory nor comes back (MobileNetV2's blocks are the case: Sandler et al. 2018).
#
#   for band of output rows                                            threads take these
#     for some rows of it
#       move up the rows that these read too, and make the rest, which are one tile of the direct driver
#       the depthwise driver (drivers/patches.pxi)
#
# Each of the two makes the bits that it makes alone.

cdef enum:
    PAIR_FROM = 4 << 20         # bytes of the map between: gains 4 % of MobileNetV2 by one of 4.8 MB, costs 3 by some of 2
                                # (Zen 4)
    PAIR_BUFFER = 3 << 17       # and of the part of it in scratch memory, if a row of outputs takes no more
    PAIR_BANDS = 2              # of a thread: each makes the rows at its edge once more


cdef struct PairJob:
    DirectPass first            # whose y moves with the band
    PatchJob second
    size band, bands            # rows of a task, and tasks of an image
    size rows, held             # of outputs that are made together, and rows under them at most
    size row_bytes, first_bytes, second_bytes


cdef inline bint pair_begins(Work work) noexcept:
    """Whether a work is a pointwise convolution that makes pixels side by side."""
    cdef const DirectPass* p
    if work.tasks == 0 or work.task != direct_any_task or (<DirectRun*>work.job).count != 1:
        return False
    p = (<DirectRun*>work.job).passes
    return (p.source == IN_PLACE and p.before.scale == NULL and volume(p.taps) == 1 and p.groups == 1
            and p.extent[0] == p.extent[1] == 1 and volume(p.merge) == 1 and p.flags == NULL and p.requantise == NULL
            and not p.has_residual and not p.long_ and p.weights.packed != NULL and p.y_code == p.kernels.sum
            and p.y.s[1] == p.kernels.size and p.y.s[3] == p.outputs * p.kernels.size)


cdef inline bint pair_ends(Work work, const DirectPass* first) noexcept:
    """Whether it is a depthwise convolution of what that one makes, where it lies."""
    cdef const PatchJob* job
    cdef const PatchPass* p
    if work.tasks == 0 or work.task != patch_task or (<PatchJob*>work.job).own.count != 1:
        return False
    job = <PatchJob*>work.job
    p = job.own.passes
    return (job.x.x == first.y.p and not job.packs and job.kernels == first.kernels and job.x_code == first.y_code
            and job.images == first.y.n[0] and job.own.total == first.outputs and volume(p.every) == 1
            and volume(p.offset) == 0 and volume(p.apart) == 1 and p.input[0] == p.outputs[0] == p.taps[0] == 1
            and p.input[1] * p.input[2] == first.extent[2] and job.x.x_ == first.y.s[3]
            and job.x.y == p.input[2] * job.x.x_ and p.input[1] * job.x.y >= PAIR_FROM)


def pair(Work first, Work second):
    """One work that does what these two do one after the other, but for the map between them, which it leaves as it is;
    None where they are no pair, or the second writes where the first reads."""
    cdef const DirectPass* alone
    cdef const PatchJob* after
    cdef Work work
    if not pair_begins(first):
        return None
    alone = (<DirectRun*>first.job).passes
    if not pair_ends(second, alone):
        return None
    after = <PatchJob*>second.job
    if (alone.x.p < after.out.y + after.images * after.y_n
            and after.out.y < alone.x.p + alone.x.n[0] * alone.x.s[0]):
        return None
    work = Work()
    work.keep = first, second
    pair_bind(work, alone, after, max(first.threads, second.threads))
    return work


cdef int pair_bind(Work work, const DirectPass* first, const PatchJob* second, int threads) except -1:
    cdef PairJob* job = <PairJob*>work.own(sizeof(PairJob) + sizeof(PatchOut))
    cdef DirectPass* p = &job.first
    cdef size width = second.own.passes.input[2]
    p[0], job.second = first[0], second[0]
    job.row_bytes = width * p.y.s[3]
    job.second.out = <PatchOut*>(job + 1)
    job.second.out[0] = second.out[0]
    job.second.cuts, job.second.ahead = 1, 0
    pair_bands(job, threads)
    p.tiles[0] = p.tiles[1] = p.tiles[2] = p.tile[0] = p.tile[1] = p.images = 1   # rows that are made at once
    p.tile[2], p.order, p.y.s[0] = job.held * width, NULL, 0
    p.panels_per_task, p.panel_chunks, p.first_task = p.panels, 1, 0
    direct_scratch(p)
    job.first_bytes, job.second_bytes = round_up(p.scratch_bytes, 64), round_up(job.second.inside_bytes, 64)
    work.scratch_bytes = job.first_bytes + job.second_bytes + job.held * job.row_bytes
    work.task, work.begin, work.job, work.tasks = pair_task, direct_begin, job, job.second.images * job.bands
    work.place(&p.x.p)
    work.place(&job.second.out.y)
    return work.team(threads)


cdef void pair_bands(PairJob* job, int threads) noexcept:
    """The rows that are made together, and those of a task."""
    cdef const PatchPass* p = job.second.own.passes
    cdef size span = (p.taps[1] - 1) * p.step[1] + 1, stride = job.second.own.stride[1], rows = p.outputs[1]
    job.bands = max(<size>1, min(rows, PAIR_BANDS * threads))
    job.band = (rows + job.bands - 1) // job.bands
    job.bands = (rows + job.band - 1) // job.band
    job.rows = min(job.band, max(<size>0, PAIR_BUFFER // job.row_bytes - span) // stride + 1)
    job.held = min(p.input[1], (job.rows - 1) * stride + span)


cdef void pair_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """A band of an image."""
    cdef const PairJob* job = <const PairJob*>job_
    cdef const PatchPass* p = job.second.own.passes
    cdef DirectPass first = job.first
    cdef PatchJob second = job.second
    cdef size image = task // job.bands, y = task % job.bands * job.band, end = min(y + job.band, p.outputs[1])
    cdef size made = 0, base = 0, rows, v, last, width = p.input[2]
    cdef size[2] under
    cdef size[2] pixels
    cdef char* buffer = scratch + job.first_bytes + job.second_bytes
    first.x.p += image * first.x.s[0]
    first.edge[2] = pixels
    while y < end and not fc_interrupted(watch):
        rows = min(job.rows, end - y)
        inputs_under(job.second.own, p, 1, y, y + rows - 1, under)
        if made > under[0]:
            memmove(buffer, buffer + (under[0] - base) * job.row_bytes, (made - under[0]) * job.row_bytes)
        base, made = under[0], max(made, under[0])
        first.y.p = buffer - base * job.row_bytes
        second.x.x = first.y.p - image * second.x_n
        pixels[0], pixels[1], made = made * width, under[1] * width, under[1]
        if pixels[0] < pixels[1]:
            direct_task(&first, scratch, 0, watch)
        v = 0
        while v < second.vectors:
            last = min(v + second.together, second.vectors)
            patch_lines(&second, p, second.out, scratch + job.first_bytes, image, v, last, y, y + rows, watch)
            v = last
        y += rows
