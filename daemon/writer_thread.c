#include "writer_thread.h"

#include <time.h>

enum { STACK_BYTES = 64 << 10 }; // of writes and log lines; above PTHREAD_STACK_MIN

int gd_writer_thread_start(pthread_t *thread, pthread_mutex_t *mutex, pthread_cond_t *changed,
                           void *(*run)(void *context), void *context) {
    pthread_attr_t attributes;
    pthread_condattr_t clock;

    pthread_mutex_init(mutex, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(changed, &clock);
    pthread_condattr_destroy(&clock);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int result = pthread_create(thread, &attributes, run, context);
    pthread_attr_destroy(&attributes);
    return -result;
}
