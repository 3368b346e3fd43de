/* Scratch memory, from the start of a cache line on: the one place that allocates. */
#ifndef FASTCONV_MEMORY_H
#define FASTCONV_MEMORY_H

#include <stddef.h>
#include <stdlib.h>
#ifdef _WIN32
#include <malloc.h>
#endif

enum { FC_LINE = 64 };

/* At least so many bytes, never NULL for 0; NULL where there is no such memory. */
static inline void *fc_allocate(size_t bytes) {
    const size_t rounded = bytes > FC_LINE ? (bytes + FC_LINE - 1) / FC_LINE * FC_LINE : FC_LINE;
#ifdef _WIN32 /* whose C library has no aligned_alloc, and a heap of its own for what is aligned */
    return _aligned_malloc(rounded, FC_LINE);
#else
    return aligned_alloc(FC_LINE, rounded);
#endif
}

static inline void fc_free(void *memory) {
#ifdef _WIN32
    _aligned_free(memory);
#else
    free(memory);
#endif
}

#endif
