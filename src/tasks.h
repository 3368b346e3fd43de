/* A call's work, shared out among threads: the one place where threads start, wait and are told to stop. */
#ifndef FASTCONV_TASKS_H
#define FASTCONV_TASKS_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* Runs the handlers of signals that came; nonzero when one raised an exception. */
typedef int (*fc_look)(void);

/* What a thread at work knows of being interrupted. Only the thread that made the call may look for signals. */
typedef struct {
    int *stop;      /* shared by the threads of a call: leave the rest undone */
    fc_look look;   /* NULL: others look */
    int64_t begin;  /* of the first question, on `fc_milliseconds`; 0 before it */
    int64_t next;   /* when to look again */
} fc_watch;

/* One task of a job, with scratch memory that is the thread's own. */
typedef void (*fc_task)(void *job, char *scratch, ptrdiff_t task, fc_watch *watch);

/* work(job, .., task, ..) for every task below `tasks` on a team of threads; thread i has scratch + i * scratch_bytes.
   `even`: each thread takes one run of tasks, else the next that is left. `sites`: the tasks are that many places of the
   result again and again, so that task and task + sites write beside each other, and belong to one thread; 0: every task
   is another place, in their order. */
typedef struct {
    fc_task work;
    void *job;
    char *scratch;
    ptrdiff_t scratch_bytes, tasks, sites;
    int team, even;
    fc_look look;
} fc_call;

/* Nonzero: `look` ended it, or, FC_FORKED, a handler forked and this is the child, where tasks that others had taken are
   undone. */
enum { FC_FORKED = 2 };
int fc_run_tasks(const fc_call *call);

/* Threads that the system has room for, as far as is known: no limit until a job was refused some. */
int fc_room_for_threads(void);

/* From now on jobs run on the threads of another library in this process: GOMP_parallel, omp_get_thread_num,
   omp_in_parallel and omp_get_max_threads of the OpenMP that it uses (GNU's; libgomp's manual, "The libgomp ABI").
   NULL: on our own. */
typedef void (*fc_parallel)(void (*body)(void *), void *data, unsigned threads, unsigned flags);
typedef int (*fc_number)(void);
void fc_use_threads_of(fc_parallel parallel, fc_number seat, fc_number inside, fc_number most);

/* From now on every job runs on the thread that calls: in a forked child, which has none of its parent's helpers. */
void fc_run_alone(void);

enum { FC_LOOK_EVERY = 50 };  /* milliseconds: a tenth of what a user feels as prompt, and a call has long paid for it */

/* The clock that costs 5 ns and moves every few milliseconds. */
#ifdef _WIN32
int64_t fc_milliseconds(void);
#else
static inline int64_t fc_milliseconds(void) {
    struct timespec t;
#ifdef CLOCK_MONOTONIC_COARSE
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
#endif

/* Whether to leave the rest undone. Tasks that may take long ask between their blocks. */
static inline int fc_interrupted(fc_watch *watch) {
    if (__atomic_load_n(watch->stop, __ATOMIC_RELAXED)) return 1;
    if (!watch->look) return 0;
    const int64_t now = fc_milliseconds();
    if (now < watch->next) return 0;
    watch->next = now + FC_LOOK_EVERY;
    if (!watch->begin) {
        watch->begin = now;
        return 0;
    }
    if (!watch->look()) return 0;
    __atomic_store_n(watch->stop, 1, __ATOMIC_RELAXED);
    return 1;
}

#endif
