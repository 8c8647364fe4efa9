// A step's copy by several threads, where the trainer asks for it: one core seldom reaches the memory's bandwidth.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "internal.h"

enum { LINE_ELEMS = 64 }; // no two threads write one cache line, whatever the type

struct client_gather {
    const struct gradientd_run *run;
    uint32_t n_threads; // with the trainer's own
    pthread_mutex_t mutex;
    pthread_cond_t begun, done;
    pthread_t threads[GRADIENTD_COPY_THREADS_MAX];

    // guarded by the mutex
    uint64_t step; // counts gathers
    uint32_t busy; // helpers still copying
    bool ending;
    uint8_t *elements;
    const void *const *gradients;
};

struct helper {
    struct client_gather *gather;
    uint32_t part;
};

static void copy_part(const struct client_gather *gather, uint32_t part) {
    uint64_t lines = (gather->run->elements + LINE_ELEMS - 1) / LINE_ELEMS;
    uint64_t first = lines * part / gather->n_threads * LINE_ELEMS;
    uint64_t end = lines * (part + 1) / gather->n_threads * LINE_ELEMS;
    if (end > gather->run->elements)
        end = gather->run->elements;
    client_copy_elements(gather->run, &gather->run->vector, gather->elements, gather->gradients, first, end);
}

static void *help(void *argument) {
    struct helper helper = *(struct helper *)argument;
    struct client_gather *gather = helper.gather;
    uint64_t step = 0;

    free(argument);
    pthread_mutex_lock(&gather->mutex);
    for (;;) {
        while (gather->step == step && !gather->ending)
            pthread_cond_wait(&gather->begun, &gather->mutex);
        if (gather->ending)
            break;
        step = gather->step;
        pthread_mutex_unlock(&gather->mutex);
        copy_part(gather, helper.part);
        pthread_mutex_lock(&gather->mutex);
        if (--gather->busy == 0)
            pthread_cond_signal(&gather->done);
    }
    pthread_mutex_unlock(&gather->mutex);
    return NULL;
}

static int start_helper(struct client_gather *gather, uint32_t part) {
    struct helper *helper = malloc(sizeof(*helper));
    if (!helper)
        return -ENOMEM;
    *helper = (struct helper){gather, part};
    int result = pthread_create(&gather->threads[part], NULL, help, helper);
    if (result != 0)
        free(helper);
    return -result;
}

int client_gather_new(const struct gradientd_run *run, uint32_t n_threads, struct client_gather **ret_gather) {
    struct client_gather *gather = calloc(1, sizeof(*gather));
    sigset_t before;
    if (!gather)
        return -ENOMEM;
    gather->run = run;
    pthread_mutex_init(&gather->mutex, NULL);
    pthread_cond_init(&gather->begun, NULL);
    pthread_cond_init(&gather->done, NULL);

    client_block_signals(&before);
    gather->n_threads = 1;
    while (gather->n_threads < n_threads && start_helper(gather, gather->n_threads) == 0)
        gather->n_threads++; // with fewer, where the system gives no more
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    *ret_gather = gather;
    return 0;
}

void client_gather_free(struct client_gather *gather) {
    if (!gather)
        return;
    pthread_mutex_lock(&gather->mutex);
    gather->ending = true;
    pthread_cond_broadcast(&gather->begun);
    pthread_mutex_unlock(&gather->mutex);
    for (uint32_t i = 1; i < gather->n_threads; i++)
        pthread_join(gather->threads[i], NULL);
    pthread_cond_destroy(&gather->begun);
    pthread_cond_destroy(&gather->done);
    pthread_mutex_destroy(&gather->mutex);
    free(gather);
}

void client_gather_step(struct client_gather *gather, uint8_t *elements, const void *const *gradients) {
    pthread_mutex_lock(&gather->mutex);
    gather->elements = elements;
    gather->gradients = gradients;
    gather->busy = gather->n_threads - 1;
    gather->step++;
    pthread_cond_broadcast(&gather->begun);
    pthread_mutex_unlock(&gather->mutex);

    copy_part(gather, 0);
    pthread_mutex_lock(&gather->mutex);
    while (gather->busy > 0)
        pthread_cond_wait(&gather->done, &gather->mutex);
    pthread_mutex_unlock(&gather->mutex);
}
