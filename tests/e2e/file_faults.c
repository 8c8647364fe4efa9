#include "file_faults.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "event_values.h"
#include "fixture.h"
#include "trainer.h"

enum { SCALARS = 400 };

static const double PATIENCE_SECONDS = 30.0;

// `loss` and a lot of ballast.
static const struct gradientd_scalar *scalars_of(int64_t step) {
    static struct gradientd_scalar scalars[SCALARS];
    static char tags[SCALARS][48];
    for (int i = 0; i < SCALARS; i++) {
        snprintf(tags[i], sizeof(tags[i]), i == 0 ? "loss" : "ballast/%04d/of-some-length-so-that-it-weighs", i);
        scalars[i] = (struct gradientd_scalar){tags[i], (float)(step * 1000 + i)};
    }
    return scalars;
}

static int submit(struct gradientd_run *run, int64_t number) {
    float gradient[TRAINER_NUMEL];
    struct gradientd_step step = trainer_step(number);
    step.optimizer_step = (uint64_t)number;
    step.scalars = scalars_of(number);
    step.n_scalars = SCALARS;
    trainer_gradient(number, gradient);
    return trainer_submit(run, &step, gradient);
}

void faulty_submit(struct gradientd_run *run, int64_t first, int64_t last) {
    for (int64_t step = first; step <= last; step++) {
        int result = submit(run, step);
        cr_assert(result == GRADIENTD_OK, "step %lld: %d %s", (long long)step, result, gradientd_last_error(run));
    }
}

void faulty_offer(struct gradientd_run *run, int64_t first, int64_t last) {
    for (int64_t step = first; step <= last; step++) {
        int result = submit(run, step);
        cr_assert(result == GRADIENTD_OK || result == GRADIENTD_SKIPPED, "step %lld: %d %s", (long long)step, result,
                  gradientd_last_error(run));
    }
}

struct written {
    const char *path;
    int64_t step;
};

static bool is_written(const void *context) {
    const struct written *written = context;
    struct event_values values;
    event_values_read(written->path, &values);
    bool found = event_values_find(&values, "loss", written->step) != NULL;
    event_values_free(&values);
    return found;
}

void faulty_wait_written(const char *path, int64_t step) {
    struct written written = {path, step};
    cr_assert(scratch_wait_until(is_written, &written, PATIENCE_SECONDS), "step %lld is not written", (long long)step);
}

size_t faulty_log_lines(const char *what, const char *also) {
    char line[2048];
    size_t lines = 0;
    FILE *log = fopen(daemon_process.log, "re");
    cr_assert(log);
    while (fgets(line, sizeof(line), log))
        lines += strstr(line, what) && strstr(line, also);
    fclose(log);
    return lines;
}

struct logged {
    const char *what, *also;
};

static bool is_logged(const void *context) {
    const struct logged *logged = context;
    return faulty_log_lines(logged->what, logged->also) > 0;
}

void faulty_wait_logged(const char *what, const char *also) {
    struct logged logged = {what, also};
    cr_assert(scratch_wait_until(is_logged, &logged, PATIENCE_SECONDS), "nothing in the log says %s, %s", what, also);
}

void faulty_expect_one_trouble(const char *name, const char *what) {
    char run[64];
    snprintf(run, sizeof(run), "run %s: event file: ", name);
    cr_expect_eq(faulty_log_lines(run, what), 1, "%zu lines tell of %s", faulty_log_lines(run, what), what);
    cr_expect_eq(faulty_log_lines(run, "not written"), 1, "%zu lines tell of trouble",
                 faulty_log_lines(run, "not written"));
    cr_expect_eq(faulty_log_lines(run, "writing again"), 1, "%zu lines tell of its end",
                 faulty_log_lines(run, "writing again"));
    cr_expect_eq(faulty_log_lines(run, ".gradientd"), 2, "the lines must name the file");
}

int faulty_descriptor(const char *path) {
    int found = -1;
    DIR *entries = opendir("/proc/self/fd");
    cr_assert(entries);
    for (struct dirent *entry; (entry = readdir(entries));) {
        char target[512];
        ssize_t bytes = readlinkat(dirfd(entries), entry->d_name, target, sizeof(target) - 1);
        target[bytes < 0 ? 0 : bytes] = '\0';
        if (strcmp(target, path) == 0)
            found = atoi(entry->d_name);
    }
    closedir(entries);
    cr_assert_geq(found, 0, "%s is not open", path);
    return found;
}

const char *faulty_reference(int64_t last) {
    static char path[512];
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "reference", NULL);
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    faulty_submit(run, 1, last);
    trainer_close(run);
    return path;
}

void faulty_expect_undisturbed(const char *path, int64_t last) {
    scratch_expect_same(path, faulty_reference(last));
}
