// The threads that wait for file systems, so that nobody else does.
#pragma once

#include <pthread.h>

// Starts one on a small stack, with the lock and the condition that it is woken by, which is timed by CLOCK_MONOTONIC;
// all three are the caller's to end. Returns 0 or a negative errno.
__attribute__((warn_unused_result)) int gd_writer_thread_start(pthread_t *thread, pthread_mutex_t *mutex,
                                                               pthread_cond_t *changed, void *(*run)(void *context),
                                                               void *context);
