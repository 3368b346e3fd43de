#include <omp.h>
#include "tasks.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h> /* here alone: its macros take common names */
int64_t fc_milliseconds(void) { return (int64_t)GetTickCount64(); }
static void rest(void) { Sleep(1); }
#else
static void rest(void) {
    const struct timespec pause = {0, 100000};
    nanosleep(&pause, NULL);
}
#endif

static int alone;

void fc_run_alone(void) { alone = 1; }

/* The calling thread has nothing left to do: it looks for signals while others are busy in a call that takes long. */
static void wait_for_others(fc_watch *watch, const int *arrived, int team) {
    if (!watch->begin || fc_milliseconds() < watch->begin + FC_LOOK_EVERY) return;  /* the barrier is quicker */
    while (__atomic_load_n(arrived, __ATOMIC_RELAXED) < team && !fc_interrupted(watch)) rest();
}

int fc_run_tasks(fc_task work, void *job, char *scratch, ptrdiff_t scratch_bytes, ptrdiff_t tasks, int team, int even,
                 fc_look look) {
    int stop = 0, arrived = 0;
    if (team > tasks) team = (int)tasks;
    if (team <= 1 || alone) {
        fc_watch watch = {&stop, look, 0, 0};
        for (ptrdiff_t task = 0; task < tasks && !(task && fc_interrupted(&watch)); task++)
            work(job, scratch, task, &watch);
        return stop;
    }
#pragma omp parallel num_threads(team)
    {
        const int thread = omp_get_thread_num();
        fc_watch watch = {&stop, thread == 0 ? look : NULL, 0, 0};
        char *own = scratch ? scratch + thread * scratch_bytes : NULL;
        if (even) {
#pragma omp for schedule(static) nowait
            for (ptrdiff_t task = 0; task < tasks; task++)
                if (!fc_interrupted(&watch)) work(job, own, task, &watch);
        } else {
#pragma omp for schedule(dynamic) nowait
            for (ptrdiff_t task = 0; task < tasks; task++)
                if (!fc_interrupted(&watch)) work(job, own, task, &watch);
        }
        __atomic_add_fetch(&arrived, 1, __ATOMIC_RELAXED);
        if (thread == 0) wait_for_others(&watch, &arrived, omp_get_num_threads());
    }
    return stop;
}
