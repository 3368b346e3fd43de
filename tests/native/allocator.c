/* A memory allocator for tests: every block between inaccessible pages, counted, and failing when asked to.

   Preloaded (LD_PRELOAD) it stands in for aligned_alloc, from which fastconv takes all its scratch memory; its data_*
   functions stand in for NumPy's allocator of array data (reliability/allocator.py installs them). While it is off,
   memory comes from the C library. A block lies in address space that is used once, so that a use after free is a
   fault too:

     [no access] [pages with the block, flush with their end or their beginning] [no access]

   A fault prints the note that the test left about what it was doing. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

enum { PAGE = 4096, OFF = 0, BEHIND = 1, BEFORE = 2, POISONED = 4 };
static const size_t ARENA = (size_t)1 << 42; /* address space, of which one run uses little */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *arena, *next;
static size_t *sizes; /* of the block that begins in each page of the arena */
static int mode;
static long requests, fail_at; /* fail_at: the number of the request that fails, 0 for none */
static size_t live_blocks, live_bytes, peak_bytes;
static char note[4096];
static struct sigaction before_us[2];

static int ours(const void *p) { return arena && (const char *)p >= arena && (const char *)p < arena + ARENA; }

static size_t *size_of(void *p) { return sizes + ((char *)p - arena) / PAGE; }

static size_t pages_of(size_t size) { return size / PAGE + (size % PAGE || !size); }

static void *reserve(size_t size, int protection) {
    void *space = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED) _exit(97);
    return space;
}

static void *allocate(size_t size, int zeroed) {
    size_t pages = pages_of(size), whole = (pages + 1) * PAGE;
    void *block = NULL;
    pthread_mutex_lock(&lock);
    requests++;
    if (requests != fail_at && size < ARENA / 8) {
        if (!arena) {
            sizes = reserve(ARENA / PAGE * sizeof *sizes, PROT_READ | PROT_WRITE);
            next = arena = reserve(ARENA, PROT_NONE);
        }
        if (next + whole + PAGE > arena + ARENA) _exit(98);
        char *data = next + PAGE;
        if (!mprotect(data, pages * PAGE, PROT_READ | PROT_WRITE)) {
            next += whole;
            live_blocks++;
            live_bytes += size;
            if (live_bytes > peak_bytes) peak_bytes = live_bytes;
            block = mode & BEFORE ? data : data + (pages * PAGE - (size ? size : 1));
            *size_of(block) = size;
        }
    }
    pthread_mutex_unlock(&lock);
    if (block && (mode & POISONED) && !zeroed) memset(block, 0xFF, size); /* NaN, or -1: read before written, it shows */
    return block;
}

static void release(void *p) {
    pthread_mutex_lock(&lock);
    size_t bytes = pages_of(*size_of(p)) * PAGE;
    void *data = (void *)((uintptr_t)p / PAGE * PAGE);
    live_blocks--;
    live_bytes -= *size_of(p);
    if (mmap(data, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        _exit(99);
    pthread_mutex_unlock(&lock);
}

void *aligned_alloc(size_t alignment, size_t size) {
    return mode ? allocate(size, 0) : __libc_memalign(alignment, size);
}

void free(void *p) {
    if (ours(p))
        release(p);
    else
        __libc_free(p);
}

void *data_malloc(void *context, size_t size) {
    (void)context;
    return mode ? allocate(size, 0) : __libc_malloc(size);
}

void *data_calloc(void *context, size_t count, size_t size) {
    (void)context;
    if (!mode) return __libc_calloc(count, size);
    return size && count > (size_t)-1 / size ? NULL : allocate(count * size, 1);
}

void *data_realloc(void *context, void *p, size_t size) {
    if (!ours(p)) return __libc_realloc(p, size);
    void *block = data_malloc(context, size);
    if (block) {
        memcpy(block, p, size < *size_of(p) ? size : *size_of(p));
        release(p);
    }
    return block;
}

void data_free(void *context, void *p, size_t size) {
    (void)context, (void)size;
    free(p);
}

static void say(const char *text) {
    if (write(2, text, strlen(text)) < 0) return;
}

/* Says what was being done and returns to the handler from before, under which the same fault comes again. */
static void fault(int number, siginfo_t *info, void *context) {
    (void)context;
    say("\nfault in ");
    say(note);
    say(ours(info->si_addr) ? "\non a page beside a block or of one freed\n" : "\noutside all guarded memory\n");
    sigaction(SIGSEGV, &before_us[0], NULL);
    sigaction(SIGBUS, &before_us[1], NULL);
    (void)number;
}

void memory_mode(int wanted) { mode = wanted; }
void memory_fail_at(long number) { requests = 0, fail_at = number; }
size_t memory_live_blocks(void) { return live_blocks; }
size_t memory_live_bytes(void) { return live_bytes; }
size_t memory_peak_bytes(void) { return peak_bytes; }
void memory_reset_peak(void) { peak_bytes = live_bytes; }

void memory_note(const char *text) {
    strncpy(note, text, sizeof note - 1);
}

void memory_watch_faults(void) {
    struct sigaction action = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, &before_us[0]);
    sigaction(SIGBUS, &action, &before_us[1]);
}
