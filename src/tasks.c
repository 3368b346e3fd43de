/* The team of threads that a job's tasks are shared out among.

   A job is over when its tasks are done, not when every thread has come: tasks are claimed, first of a share that is the
   thread's own, then from the ends of the others' shares; the caller claims too and could do all of them; it waits only
   for helpers that are in the middle of a task. A helper that finds no job spins for a while, since in a net the next job
   comes within microseconds, and then sleeps.

   A thread's share is a run of places of the result, the same part of it in every job: what one step of a net wrote the
   next one reads on the same processor. That matters less for the reading than for the writing afterwards: a line of
   memory that two processors have read costs ten times as much to write as one that is the writer's own.

   Where other processes are busy, a helper may lose its CPU in the middle of a task, and the caller would wait for it a
   slice of the scheduler's (milliseconds). Who was waited for as long as that lately is left out of the next jobs for a
   while, twice as long each time that it happens again; shorter waits, which an idle machine knows too, cost less than
   a helper that is missing. Results do not depend on how many threads compute them. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* the processor that a thread is on */
#endif
#include <limits.h>
#include <omp.h>
#include "tasks.h"

static int alone;

void fc_run_alone(void) { alone = 1; }

static int run_alone(const fc_call *call) {
    int stop = 0;
    fc_watch watch = {&stop, call->look, 0, 0};
    for (ptrdiff_t task = 0; task < call->tasks && !(task && fc_interrupted(&watch)); task++)
        call->work(call->job, call->scratch, task, &watch);
    return stop;
}

#ifdef _WIN32 /* OpenMP's team */
#define WIN32_LEAN_AND_MEAN
#include <windows.h> /* here alone: its macros take common names */
int64_t fc_milliseconds(void) { return (int64_t)GetTickCount64(); }
static void rest(void) { Sleep(1); }

int fc_room_for_threads(void) { return INT_MAX; }

void fc_use_threads_of(fc_parallel parallel, fc_number seat, fc_number inside, fc_number most) {
    (void)parallel, (void)seat, (void)inside, (void)most;
}

/* The calling thread has nothing left to do: it looks for signals while others are busy in a call that takes long. */
static void wait_for_others(fc_watch *watch, const int *arrived, int team) {
    if (!watch->begin || fc_milliseconds() < watch->begin + FC_LOOK_EVERY) return;  /* the barrier is quicker */
    while (__atomic_load_n(arrived, __ATOMIC_RELAXED) < team && !fc_interrupted(watch)) rest();
}

int fc_run_tasks(const fc_call *call) {
    int stop = 0, arrived = 0, team = call->team;
    const ptrdiff_t tasks = call->tasks;
    if (team > tasks) team = (int)tasks;
    if (team <= 1 || alone || omp_in_parallel()) return run_alone(call);
#pragma omp parallel num_threads(team)
    {
        const int thread = omp_get_thread_num();
        fc_watch watch = {&stop, thread == 0 ? call->look : NULL, 0, 0};
        char *own = call->scratch ? call->scratch + thread * call->scratch_bytes : NULL;
        if (call->even) {
#pragma omp for schedule(static) nowait
            for (ptrdiff_t task = 0; task < tasks; task++)
                if (!fc_interrupted(&watch)) call->work(call->job, own, task, &watch);
        } else {
#pragma omp for schedule(dynamic) nowait
            for (ptrdiff_t task = 0; task < tasks; task++)
                if (!fc_interrupted(&watch)) call->work(call->job, own, task, &watch);
        }
        __atomic_add_fetch(&arrived, 1, __ATOMIC_RELAXED);
        if (thread == 0) wait_for_others(&watch, &arrived, omp_get_num_threads());
    }
    return stop;
}

#else
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

enum {
    TEAMS = 16,                 /* jobs of different callers that have helpers at the same time */
    MOST_HELPERS = 1023,        /* of a team */
    SPIN = 100000,              /* nanoseconds that a helper without a job looks for one before it sleeps: longer, and it takes
                                   the CPU from its own caller where others are busy (bench/busy.py) */
    LATE = 200000,              /* nanoseconds that the caller waits for a helper before it is taken for late */
    LOST = 2500000,             /* nanoseconds lost by waiting for late helpers, less half of them for each MEMORY that
                                   passes, from which on they are left out: about a slice of Linux' scheduler */
    MEMORY = 8000000,
    LEFT_OUT = 4000000,         /* nanoseconds that a late helper is left out at first */
    LEFT_OUT_LONGEST = 256000000,
    ASK_AGAIN = 1000,           /* milliseconds after the system refused a thread */
    STACK_BYTES = 1 << 20,
    ALL_HELPERS = 256,          /* of the process, unless there are more processors */
};

/* The parts that a thread takes first: those of its seat. Two numbers in one: below, how many it has begun, and above, how
   many others have left of them. */
typedef struct { _Alignas(64) _Atomic uint64_t left; } Share;

/* A line of the cache, and a line for each share: what a helper waits for before it can begin is as little as can be. */
typedef struct {
    fc_task work;
    void *job;
    char *scratch;
    ptrdiff_t scratch_bytes, tasks;
    int *stop;
    unsigned mode;          /* of the caller's floating-point arithmetic */
    int parts;              /* runs of tasks that one thread takes */
    int sites;              /* parts of a round; fewer than threads: every so many-th part is a thread's */
    unsigned short team;
    atomic_ushort seats;    /* taken */
    Share shares[];         /* of every seat */
} Job;

typedef struct {
    _Alignas(64) atomic_uint ticket; /* counts jobs */
    atomic_int inside;    /* helpers that may touch the job */
    _Atomic(Job *) job;   /* NULL: nothing to join */
    atomic_int processor; /* that the caller of the last job was on; -1: unknown */
    _Alignas(64) pthread_mutex_t lock;
    pthread_cond_t called;
    atomic_int sleeping;
    atomic_flag taken; /* by a caller */
    int helpers;       /* the taker's, as all below */
    int most;          /* threads of a job, as long as somebody is left out */
    int64_t until, left_out;
    int64_t lost, noted; /* by waiting for late helpers, as of when */
} Team;

static Team teams[TEAMS] = {[0 ... TEAMS - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER}};
static atomic_int working; /* threads of all jobs */
static atomic_int all_helpers;
static atomic_int room = INT_MAX;
static _Atomic(fc_parallel) host_parallel; /* NULL: the team is our own */
static _Atomic(fc_number) host_seat, host_inside, host_most;
static _Atomic int64_t refused; /* when, in milliseconds; 0: never */

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A clock that costs less, in units of its own. */
static inline uint64_t ticks(void) {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t now;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(now));
    return now;
#else
    return (uint64_t)nanoseconds();
#endif
}

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int fc_room_for_threads(void) { return atomic_load(&room); }

void fc_use_threads_of(fc_parallel parallel, fc_number seat, fc_number inside, fc_number most) {
    atomic_store(&host_parallel, NULL);
    atomic_store(&host_seat, seat), atomic_store(&host_inside, inside), atomic_store(&host_most, most);
    atomic_store(&host_parallel, parallel);
}

/* Rounding and what becomes of subnormal numbers: a helper does as its caller does. */
static inline unsigned float_mode(void) {
#if defined(__x86_64__)
    return __builtin_ia32_stmxcsr();
#elif defined(__aarch64__)
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return (unsigned)mode; /* the upper half has no meaning */
#else
    return 0;
#endif
}

static inline void set_float_mode(unsigned mode) {
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(mode);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)mode));
#else
    (void)mode;
#endif
}

/* A scheduler may wake a helper on its caller's processor, though another one is idle, when that is where the helper was
   last (other libraries' pinned threads drove it there); both would take turns for milliseconds. */
#ifdef __linux__
static int processor_now(void) { return sched_getcpu(); }

static void keep_off(int processor) {
    cpu_set_t all, others;
    if (processor < 0 || sched_getcpu() != processor || sched_getaffinity(0, sizeof all, &all)) return;
    others = all;
    CPU_CLR((size_t)processor, &others);
    if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others)) return;
    sched_setaffinity(0, sizeof all, &all); /* it has moved, and may go where it could */
}
#else
static int processor_now(void) { return -1; }

static void keep_off(int processor) { (void)processor; }
#endif

enum { MOST_PARTS = 1 << 30 };

/* On the caller's stack: it returns when nobody can be inside any more. */
#define ROOM_FOR_JOB(name, threads)                                                                                  \
    Job *const name = __builtin_alloca_with_align(sizeof(Job) + (size_t)(threads) * sizeof(Share), 8 * 64)

/* The first site of a seat. */
static inline int first_site(const Job *job, int seat) { return (int)((int64_t)job->sites * seat / job->team); }

static void fill_job(Job *job, const fc_call *call, int threads, ptrdiff_t parts, int *stop) {
    const ptrdiff_t sites = call->sites == 0 || parts % call->sites ? parts : call->sites;
    *job = (Job){call->work, call->job, call->scratch, call->scratch_bytes, call->tasks, stop, float_mode(), (int)parts,
                 (int)sites, (unsigned short)threads, 1};
    for (int seat = 0; seat < threads; seat++) {
        const ptrdiff_t own = sites < threads ? (parts - seat + threads - 1) / threads
                                              : (first_site(job, seat + 1) - first_site(job, seat)) * (parts / sites);
        atomic_init(&job->shares[seat].left, (uint64_t)own << 32);
    }
}

/* The part that is a seat's own `number`-th. */
static inline ptrdiff_t part_of(const Job *job, int seat, ptrdiff_t number) {
    if (job->sites < job->team) return seat + number * job->team;
    const ptrdiff_t first = first_site(job, seat), own = first_site(job, seat + 1) - first;
    return number / own * job->sites + first + number % own;
}

/* The next part for a seat; -1 where none is left. */
static ptrdiff_t claim(Job *job, int seat) {
    for (int i = 0; i < job->team; i++) {
        const int of = seat + i < job->team ? seat + i : seat + i - job->team;
        uint64_t left = atomic_load_explicit(&job->shares[of].left, memory_order_relaxed);
        for (ptrdiff_t begun, end; (begun = left & UINT32_MAX) < (end = left >> 32);)
            if (atomic_compare_exchange_weak_explicit(&job->shares[of].left, &left,
                                                      i ? left - ((uint64_t)1 << 32) : left + 1, memory_order_relaxed,
                                                      memory_order_relaxed))
                return part_of(job, of, i ? end - 1 : begun);
    }
    return -1;
}

static int all_claimed(Job *job) {
    for (int seat = 0; seat < job->team; seat++) {
        const uint64_t left = atomic_load_explicit(&job->shares[seat].left, memory_order_relaxed);
        if ((left & UINT32_MAX) < left >> 32) return 0;
    }
    return 1;
}

static void do_part(const Job *job, ptrdiff_t part, char *scratch, fc_watch *watch) {
    const ptrdiff_t each = job->tasks / job->parts, more = job->tasks % job->parts;
    const ptrdiff_t begin = part * each + (part < more ? part : more), end = begin + each + (part < more);
    for (ptrdiff_t task = begin; task < end && !fc_interrupted(watch); task++) job->work(job->job, scratch, task, watch);
}

/* Claims parts until none is left; `longest`: the ticks of the one that took most. */
static void take_parts(Job *job, int seat, fc_watch *watch, uint64_t *longest) {
    char *scratch = job->scratch ? job->scratch + seat * job->scratch_bytes : NULL;
    ptrdiff_t part;
    uint64_t before = longest ? ticks() : 0;
    while ((part = claim(job, seat)) >= 0) {
        do_part(job, part, scratch, watch);
        if (!longest) continue;
        const uint64_t now = ticks();
        if (now - before > *longest) *longest = now - before;
        before = now;
    }
}

static unsigned wait_for_call(Team *team, unsigned seen) {
    const int64_t until = nanoseconds() + SPIN;
    do
        for (int i = 0; i < 64; i++) {
            const unsigned ticket = atomic_load_explicit(&team->ticket, memory_order_acquire);
            if (ticket != seen) return ticket;
            relax();
        }
    while (nanoseconds() < until);
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->sleeping, 1);
    while (atomic_load(&team->ticket) == seen) pthread_cond_wait(&team->called, &team->lock);
    atomic_fetch_sub(&team->sleeping, 1);
    pthread_mutex_unlock(&team->lock);
    return atomic_load(&team->ticket);
}

static void *help(void *of) {
    Team *team = of;
    unsigned seen = 0;
    for (;;) {
        seen = wait_for_call(team, seen);
        const char *soon = (const char *)atomic_load_explicit(&team->job, memory_order_relaxed); /* or what was there */
        for (int line = 0; line < 3; line++) __builtin_prefetch(soon + 64 * line, 1, 3);
        keep_off(atomic_load_explicit(&team->processor, memory_order_relaxed)); /* though the job may be over by now */
        atomic_fetch_add(&team->inside, 1);  /* before the job is read: the caller takes it away before it counts */
        Job *job = atomic_load(&team->job);
        if (job) {
            const int seat = atomic_fetch_add(&job->seats, 1);
            if (seat < job->team) {
                fc_watch watch = {job->stop, NULL, 0, 0};
                set_float_mode(job->mode);
                take_parts(job, seat, &watch, NULL);
            }
        }
        atomic_fetch_sub(&team->inside, 1);
    }
    return NULL;
}

/* As many helpers as wanted, or as the system has room for. */
static int have_helpers(Team *team, int wanted) {
    if (wanted > MOST_HELPERS) wanted = MOST_HELPERS;
    if (team->helpers >= wanted) return wanted;
    const int64_t last = atomic_load(&refused);
    if (last && fc_milliseconds() < last + ASK_AGAIN) return team->helpers;
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  /* signals are for threads of the program */
    const int most = omp_get_num_procs() > ALL_HELPERS ? omp_get_num_procs() : ALL_HELPERS;
    int full = 0;
    while (team->helpers < wanted && !(full = atomic_load(&all_helpers) >= most) &&
           !pthread_create(&thread, &attributes, help, team))
        team->helpers++, atomic_fetch_add(&all_helpers, 1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (full) return team->helpers;
    atomic_store(&refused, team->helpers < wanted ? fc_milliseconds() : 0);
    atomic_store(&room, team->helpers < wanted ? team->helpers + 1 : INT_MAX);
    return team->helpers;
}

/* A team that no other caller has: this thread's last one if it can be. */
static Team *take_team(void) {
    static _Thread_local int last;
    for (int i = 0; i < TEAMS; i++) {
        const int number = (last + i) % TEAMS;
        if (!atomic_flag_test_and_set_explicit(&teams[number].taken, memory_order_acquire)) {
            last = number;
            return &teams[number];
        }
    }
    return NULL;
}

/* How many threads of those wanted a job gets: no more than have a CPU beside the jobs of other callers, and without
   those that others were waiting for lately. */
static int threads_now(Team *team, int wanted) {
    const int others = atomic_load(&working), processors = others ? omp_get_num_procs() : 0;
    if (others && wanted > processors - others) wanted = processors > others ? processors - others : 1;
    if (team->most && team->most < wanted) {
        if (nanoseconds() < team->until)
            wanted = team->most;
        else
            team->most = 0;
    }
    return wanted > 1 ? 1 + have_helpers(team, wanted - 1) : 1;
}

static void leave_out(Team *team, int threads, int late, int64_t waited) {
    const int64_t now = nanoseconds(), times = (now - team->noted) / MEMORY;
    team->lost = (times < 32 ? team->lost >> times : 0) + waited;
    team->noted = times ? now : team->noted;
    if (team->lost < LOST) return;
    team->lost = 0;
    if (team->left_out && now - team->until < 4 * team->left_out)
        team->left_out = team->left_out < LEFT_OUT_LONGEST ? 2 * team->left_out : team->left_out;
    else
        team->left_out = LEFT_OUT;
    team->until = now + team->left_out;
    team->most = threads > late ? threads - late : 1;
}

/* The caller has found no task left: it waits for helpers in the middle of one. Returns how many kept it waiting longer
   than LATE and twice the ticks of its own longest part, and how long it waited. */
static int wait_for_helpers(Team *team, uint64_t longest, int64_t *waited_, fc_watch *watch) {
    const struct timespec pause = {0, 50000};
    int late = 0, inside;
    for (int i = 0; i < 64 && atomic_load_explicit(&team->inside, memory_order_acquire); i++) relax();
    if (!atomic_load(&team->inside)) return 0; /* as a rule, and without a look at the clock */
    const int64_t begin = nanoseconds();
    const uint64_t first = ticks();
    while ((inside = atomic_load_explicit(&team->inside, memory_order_acquire))) {
        for (int i = 0; i < 64 && atomic_load_explicit(&team->inside, memory_order_relaxed); i++) relax();
        const int64_t waited = nanoseconds() - begin;
        if (waited <= LATE) continue;
        const double tick = (double)waited / (double)(ticks() - first);
        if (!late && (double)waited > LATE + 2 * tick * (double)longest) late = inside;
        fc_interrupted(watch);
        if (alone) break; /* a signal's handler forked: nobody is inside in this process */
        nanosleep(&pause, NULL);
    }
    *waited_ = nanoseconds() - begin;
    return late;
}

static int run_on(Team *team, int threads, Job *job, fc_look look) {
    fc_watch watch = {job->stop, look, 0, 0};
    int64_t waited = 0;
    uint64_t longest = 0;
    atomic_store_explicit(&team->job, job, memory_order_relaxed); /* before the ticket */
    atomic_store_explicit(&team->processor, processor_now(), memory_order_relaxed);
    atomic_fetch_add(&team->ticket, 1);
    if (atomic_load(&team->sleeping)) {
        pthread_mutex_lock(&team->lock);
        for (int i = atomic_load(&team->sleeping) < threads - 1 ? atomic_load(&team->sleeping) : threads - 1; i > 0; i--)
            pthread_cond_signal(&team->called);
        pthread_mutex_unlock(&team->lock);
    }
    take_parts(job, 0, &watch, &longest);
    atomic_store(&team->job, NULL); /* who comes now finds nothing */
    const int late = wait_for_helpers(team, longest, &waited, &watch);
    if (late) leave_out(team, threads, late, waited);
    return alone && !*job->stop ? FC_FORKED : *job->stop;
}

/* On the threads of another library, which spin between its calls: beside them helpers of our own would find no CPU. A
   region lasts as long as signals may wait, as a handler that forks would leave the child in one without its threads.
   All of the library's usual team is called, and whom the job has no seat for goes at once: libgomp ends the threads that
   a smaller region leaves over, and the library's next one would start them again. */
typedef struct { Job *job; int64_t until; } Seats;

static void take_a_seat(void *of) {
    const Seats *seats = of;
    Job *job = seats->job;
    fc_watch watch = {job->stop, NULL, 0, 0};
    const int seat = atomic_load(&host_seat)();
    const unsigned own = float_mode();
    char *scratch = job->scratch ? job->scratch + seat * job->scratch_bytes : NULL;
    ptrdiff_t part;
    if (seat >= job->team) return;
    set_float_mode(job->mode);
    do
        if ((part = claim(job, seat)) >= 0) do_part(job, part, scratch, &watch);
    while (part >= 0 && nanoseconds() < seats->until);
    set_float_mode(own);
}

static int run_on_host(fc_parallel parallel, int threads, Job *job, fc_look look) {
    Seats seats = {job, 0};
    const int most = atomic_load(&host_most)();
    if (threads < most) threads = most;
    for (;;) {
        seats.until = nanoseconds() + FC_LOOK_EVERY * 1000000ll;
        if (alone)
            seats.until = INT64_MAX, take_a_seat(&seats); /* a handler forked: the child does the rest */
        else
            parallel(take_a_seat, &seats, (unsigned)threads, 0);
        if (all_claimed(job)) return *job->stop;
        if (look && look()) return *job->stop = 1;
    }
}

int fc_run_tasks(const fc_call *call) {
    const ptrdiff_t tasks = call->tasks;
    int wanted = call->team > tasks ? (int)tasks : call->team;
    if (wanted > 1 && wanted > omp_get_thread_limit()) wanted = omp_get_thread_limit();
    if (wanted > MOST_HELPERS + 1) wanted = MOST_HELPERS + 1;
    const fc_parallel parallel = atomic_load(&host_parallel);
    if (wanted <= 1 || alone || omp_in_parallel() || (parallel && atomic_load(&host_inside)()))
        return run_alone(call); /* within a region every thread has work of its own */
    if (parallel) {
        int stop = 0;
        ROOM_FOR_JOB(job, wanted);
        fill_job(job, call, wanted, tasks < MOST_PARTS ? tasks : MOST_PARTS, &stop);
        return run_on_host(parallel, wanted, job, call->look);
    }
    Team *team = take_team();
    if (!team) return run_alone(call);
    int stop = 0;
    const int threads = threads_now(team, wanted);
    if (threads == 1) {
        stop = run_alone(call);
    } else {
        ROOM_FOR_JOB(job, threads);
        fill_job(job, call, threads, call->even ? threads : tasks < MOST_PARTS ? tasks : MOST_PARTS, &stop);
        atomic_fetch_add(&working, threads);
        stop = run_on(team, threads, job, call->look);
        atomic_fetch_sub(&working, threads);
    }
    atomic_flag_clear_explicit(&team->taken, memory_order_release);
    return stop;
}

#endif
