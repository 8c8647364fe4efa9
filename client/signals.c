#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "internal.h"

static const int held_numbers[] = {SIGPIPE, SIGXFSZ, SIGTTOU};

void client_hold_signals(struct client_held_signals *ret_held) {
    sigset_t writing;
    sigemptyset(&writing);
    for (size_t i = 0; i < sizeof(held_numbers) / sizeof(held_numbers[0]); i++)
        sigaddset(&writing, held_numbers[i]);
    sigpending(&ret_held->pending);
    pthread_sigmask(SIG_BLOCK, &writing, &ret_held->mask);
}

void client_block_signals(sigset_t *ret_mask) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    sigset_t others;
    sigfillset(&others);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(&others, faults[i]);
    pthread_sigmask(SIG_SETMASK, &others, ret_mask);
}

void client_release_signals(const struct client_held_signals *held) {
    sigset_t pending, raised;
    sigpending(&pending);
    sigemptyset(&raised);
    for (size_t i = 0; i < sizeof(held_numbers) / sizeof(held_numbers[0]); i++)
        if (sigismember(&pending, held_numbers[i]) && !sigismember(&held->pending, held_numbers[i])) {
            sigaddset(&raised, held_numbers[i]);
            sigtimedwait(&raised, NULL, &(struct timespec){0});
            sigdelset(&raised, held_numbers[i]);
        }
    pthread_sigmask(SIG_SETMASK, &held->mask, NULL);
}
