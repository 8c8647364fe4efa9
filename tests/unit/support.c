#include "support.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const int needed_seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

int count_fds(void) {
    DIR *directory = opendir("/proc/self/fd");
    int n = 0;
    cr_assert_not_null(directory);
    while (readdir(directory))
        n++;
    closedir(directory);
    return n;
}

bool fds_return_to(int n) {
    for (int tries = 0; tries < 5000 && count_fds() != n; tries++)
        usleep(1000);
    return count_fds() == n;
}

int new_memfd(uint64_t bytes, int seals) {
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    cr_assert(bytes == 0 || fallocate(fd, 0, 0, (off_t)bytes) == 0);
    cr_assert(fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

int new_file(int flags) {
    char path[] = "/tmp/gradientd-test-XXXXXX";
    int named = mkstemp(path);
    cr_assert(named >= 0);
    int fd = open(path, flags | O_CLOEXEC);
    cr_assert(fd >= 0);
    unlink(path);
    close(named);
    return fd;
}

struct gd_open_run *new_open_run(const uint64_t *numel, uint32_t n_groups) {
    struct gd_open_run *open_run = calloc(1, sizeof(*open_run));
    cr_assert_not_null(open_run);
    *open_run = (struct gd_open_run){
        .run = "test",
        .wall_time = 1700000000.5,
        .first_step = 1,
        .stride = 1,
        .element_type = GD_F32,
        .max_lag = 3,
        .inflight = 2,
        .thinning = true,
        .adam = {.rule = GD_RULE_ADAM, .bias_correction = true},
        .thresholds = gd_alert_thresholds_default,
        .n_groups = n_groups,
        .n_parameter_groups = 1,
    };
    open_run->groups = calloc(n_groups, sizeof(*open_run->groups));
    open_run->parameter_groups = calloc(1, sizeof(*open_run->parameter_groups));
    open_run->start_learning_rates = malloc(sizeof(*open_run->start_learning_rates));
    cr_assert(open_run->groups && open_run->parameter_groups && open_run->start_learning_rates);
    open_run->start_learning_rates[0] = (double)NAN;
    open_run->parameter_groups[0] = (struct gd_adam_rates){.beta2 = 0.999, .eps = 1e-8};
    for (uint32_t i = 0; i < n_groups; i++) {
        char name[32];
        snprintf(name, sizeof(name), "group%u", i);
        open_run->groups[i] = (struct gd_group){.numel = numel[i], .name = strdup(name)};
        open_run->elements += numel[i];
    }
    return open_run;
}

void show_groups(struct gd_open_run *open_run, enum gd_per_group per_group, uint32_t fold_depth) {
    const char **names = calloc(open_run->n_groups, sizeof(*names));
    struct gd_error error;

    cr_assert_not_null(names);
    for (uint32_t i = 0; i < open_run->n_groups; i++)
        names[i] = open_run->groups[i].name;
    open_run->selection.per_group = per_group;
    open_run->selection.fold_depth = fold_depth;
    cr_assert_eq(gd_group_series_init(&open_run->series, &open_run->selection, names, open_run->n_groups, &error), 0,
                 "%s", error.text);
    free(names);
}

void attach_new_memory(struct gd_memory *memory, const struct gd_open_run *open_run) {
    struct gd_layout layout;
    struct gd_error error;

    gd_layout_init(&layout, open_run);
    int fd = new_memfd(layout.total_bytes, needed_seals);
    cr_assert_eq(gd_memory_attach_consume(memory, fd, geteuid(), &layout, &error), 0, "%s", error.text);
}

uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

double random_unit(uint64_t *state) {
    return (double)(next_random(state) >> 11) * 0x1p-53;
}

float random_gradient(uint64_t *state) {
    double sum = 0.0;
    for (int i = 0; i < 12; i++) // variance 12 / 12
        sum += random_unit(state) - 0.5;
    return sum == 0.0 ? 1.0f : (float)sum;
}
