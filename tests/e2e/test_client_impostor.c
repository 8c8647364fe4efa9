// What a process that is no daemon can do to a trainer: nothing but cost it the run.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>

#include "fixture.h"
#include "impostor.h"
#include "trainer.h"

static struct trainer_warnings warnings;

TestSuite(client_impostor, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static long most_resident_kib(void) {
    struct rusage usage;
    cr_assert_eq(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss;
}

// A message of 1 MiB that would take 32 once it is unpacked.
Test(client_impostor, a_message_that_explodes_is_refused) {
    enum { BUFFERS_KIB = 4 << 10 }; // the client's own, for a message each way
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "bomb", &warnings);
    struct gradientd_run *run;
    struct gradientd_error error;
    daemon_process_kill(&daemon_process);
    pid_t impostor = impostor_start(options.socket, IMPOSTOR_BOMB);
    long before_kib = most_resident_kib();
    cr_expect_eq(gradientd_open(&options, &run, &error), -EPROTO, "%s", error.text);
    long taken_kib = most_resident_kib() - before_kib;
    cr_expect_lt(taken_kib, BUFFERS_KIB, "opening took %ld KiB", taken_kib);
    impostor_stop(impostor);
}
