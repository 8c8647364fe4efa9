// Criterion's assertions in a program that is no Criterion test, and in processes that it forks: what does not hold is
// said on stderr and ends the process. It is linked instead of Criterion's own.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void criterion_send_assert(struct criterion_assert_stats *stats) {
    fprintf(stderr, "%s:%u: %s\n", stats->file, stats->line, stats->message);
}

void criterion_abort_test(void) {
    _exit(EXIT_FAILURE);
}
