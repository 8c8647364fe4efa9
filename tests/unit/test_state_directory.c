// Files the daemon creates for trainers that bring none: where they lie, whom they belong to, and what is in the way.
#include "state_directory.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../tools/remove_tree.h"
#include "support.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

enum { PATH_BYTES = 256 };

static const double now = 1700000000.75;

static char directory[] = "/tmp/gradientd-test-XXXXXX";
static uid_t user; // whose file it is
static int fds;

static void set_up(void) {
    cr_assert_not_null(mkdtemp(directory));
    umask(0); // so that the modes are what was asked for
    user = 1000;
    fds = count_fds();
}

static void tear_down(void) {
    cr_expect_eq(count_fds(), fds, "a descriptor leaked");
    remove_tree(directory);
}

TestSuite(state_directory, .init = set_up, .fini = tear_down);

// "<directory>/<rest>", valid until the next call.
static const char *below(const char *rest) {
    static char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%s/%s", directory, rest);
    return path;
}

// Creates a file of the user's, process 77; the caller frees *ret_path and closes the descriptor.
static int create(const char *state_directory, const char *run, char **ret_path, struct gd_error *ret_error) {
    struct gd_event_place place = {
        .state_directory = state_directory, .uid = user, .pid = 77, .admin_group = (gid_t)-1, .run = run, .name = ""};
    *ret_error = (struct gd_error){.field = "", .text = ""};
    *ret_path = NULL;
    return gd_state_directory_open_file(&place, now, ret_path, ret_error);
}

// Creates one that must come to lie at <directory>/<expected>*.gradientd; returns its path, the caller's.
static char *create_good(const char *state_directory, const char *run, const char *expected) {
    struct gd_error error;
    char *path;
    int fd = create(state_directory, run, &path, &error);
    cr_assert_geq(fd, 0, "%s", error.text);
    cr_assert_eq(write(fd, "x", 1), 1);
    close(fd);
    const char *start = below(expected);
    cr_assert_eq(strncmp(path, start, strlen(start)), 0, "%s, not %s", path, start);
    cr_assert(strstr(path, ".77.0.gradientd"), "%s", path);
    return path;
}

static mode_t mode_of(const char *path) {
    struct stat status;
    cr_assert_eq(lstat(path, &status), 0, "%s: %s", path, strerror(errno));
    cr_assert_eq(status.st_uid, geteuid());
    return status.st_mode & 07777;
}

Test(state_directory, a_file_lies_in_its_users_folder) {
    char state[PATH_BYTES];
    snprintf(state, sizeof(state), "%s", below("var/lib/gradientd")); // all of it is missing
    free(create_good(state, "vision/run-1", "var/lib/gradientd/1000/vision/run-1/events.out.tfevents.1700000000."));
    cr_expect_eq(mode_of(state), 0755, "its user gets through");
}

Test(state_directory, what_ones_own_daemon_keeps_is_nobody_elses_business) {
    char state[PATH_BYTES], folder[PATH_BYTES * 2], run[PATH_BYTES * 2 + 8];
    snprintf(state, sizeof(state), "%s", below("state"));
    user = geteuid();
    snprintf(folder, sizeof(folder), "%s/%u", state, (unsigned)user);
    snprintf(run, sizeof(run), "%s/run", folder);
    char *path = create_good(state, "run", "state/");
    cr_expect_eq(mode_of(path), 0600);
    cr_expect_eq(mode_of(run), 0700);
    cr_expect_eq(mode_of(folder), 0700);
    cr_expect_eq(mode_of(state), 0700);
    free(path);
}

Test(state_directory, a_run_without_a_name_lies_in_the_users_folder_itself) {
    free(create_good(directory, "", "1000/events.out.tfevents.1700000000."));
}

Test(state_directory, a_later_file_of_a_run_sorts_after_the_ones_there) {
    char *first = create_good(directory, "run", "1000/run/events.out.tfevents.1700000000.");
    char *second = create_good(directory, "run", "1000/run/events.out.tfevents.1700000001.");
    cr_expect_gt(strcmp(second, first), 0);
    free(first);
    free(second);
}

// Creates one that must fail with an Error of event_file, which says `says`.
static void expect_error(const char *state_directory, const char *run, enum gd_error_code code, const char *says) {
    struct gd_error error;
    char *path;
    cr_assert_eq(create(state_directory, run, &path, &error), -EBADMSG, "%s", run);
    cr_expect_eq(error.code, code, "%s: code %d", run, (int)error.code);
    cr_expect_str_eq(error.field, "event_file");
    cr_expect(strstr(error.text, says), "\"%s\" does not say \"%s\"", error.text, says);
    cr_expect_null(path);
}

Test(state_directory, no_symlink_below_it_is_followed) {
    cr_assert_eq(mkdir(below("elsewhere"), 0700), 0);
    cr_assert_eq(mkdir(below("1000"), 0700), 0);
    cr_assert_eq(mkdir(below("1000/real"), 0700), 0);
    cr_assert_eq(symlink("../elsewhere", below("1000/linked")), 0);
    cr_assert_eq(symlink("../../elsewhere", below("1000/real/linked")), 0);
    expect_error(directory, "linked", GD_ERROR_INTERNAL, "Not a directory: ");
    expect_error(directory, "linked/run", GD_ERROR_INTERNAL, "/1000/linked/run");
    expect_error(directory, "real/linked", GD_ERROR_INTERNAL, "/1000/real/linked");
}

Test(state_directory, no_symlink_in_the_place_of_a_users_folder_is_followed) {
    cr_assert_eq(mkdir(below("elsewhere"), 0700), 0);
    cr_assert_eq(symlink("elsewhere", below("1000")), 0);
    expect_error(directory, "run", GD_ERROR_INTERNAL, "Not a directory: ");
    cr_expect_eq(rmdir(below("elsewhere")), 0, "something was put into it");
}

// The state directory itself may be one: systemd makes /var/lib/gradientd a link where the service has a dynamic user.
Test(state_directory, the_state_directory_may_be_a_symlink) {
    cr_assert_eq(mkdir(below("private"), 0700), 0);
    cr_assert_eq(symlink("private", below("state")), 0);
    char *state = strdup(below("state"));
    free(create_good(state, "run", "state/1000/run/"));
    free(state);
}

Test(state_directory, what_is_in_the_way_is_named) {
    int fd = open(below("file"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
    char *state = strdup(below("file"));
    expect_error(state, "run", GD_ERROR_INTERNAL, "Not a directory: ");
    expect_error(state, "run", GD_ERROR_INTERNAL, "/file/1000/run");
    expect_error("/proc/gradientd", "run", GD_ERROR_INTERNAL, "No such file or directory: /proc/gradientd/1000/run");
    expect_error("/dev/null/\xff\n", "run", GD_ERROR_INTERNAL, "/dev/null/\?\?/1000/run");
    expect_error(NULL, "run", GD_ERROR_UNSUPPORTED, "no state directory");
    free(state);
}

Test(state_directory, its_default_follows_the_environment) {
    const char *root = geteuid() == 0 ? "/var/lib/gradientd" : NULL;
    const struct {
        const char *given, *state, *home;
        const char *expected; // of an unprivileged user
    } cases[] = {
        {"/srv/state", "/x", "/h", "/srv/state"},
        {"/srv/one:/srv/two", "/x", "/h", "/srv/one"},
        {"", "/x", "/h", "/x/gradientd"},
        {NULL, "/x", "/h", "/x/gradientd"},
        {NULL, "", "/h", "/h/.local/state/gradientd"},
        {NULL, "relative", "/h", "/h/.local/state/gradientd"},
        {NULL, NULL, "/h", "/h/.local/state/gradientd"},
        {NULL, NULL, NULL, NULL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *const names[] = {"STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"};
        const char *const values[] = {cases[i].given, cases[i].state, cases[i].home};
        for (size_t j = 0; j < ARRAY_SIZE(names); j++)
            cr_assert_eq(values[j] ? setenv(names[j], values[j], 1) : unsetenv(names[j]), 0);
        const char *expected = root && i >= 2 ? root : cases[i].expected;
        char *path;
        cr_assert_eq(gd_state_directory_default(&path), 0);
        cr_expect(path && expected ? strcmp(path, expected) == 0 : path == expected, "case %zu: %s", i,
                  path ? path : "none");
        free(path);
    }
}

Test(state_directory, the_file_of_a_resumed_run_is_opened_again) {
    char *path, *again;
    struct gd_error error;
    user = geteuid();
    int fd = create(directory, "run", &path, &error);
    cr_assert_geq(fd, 0, "%s", error.text);
    cr_assert_eq(write(fd, "records", 7), 7);
    close(fd);

    struct gd_event_place place = {.state_directory = directory, .uid = user, .pid = 78, .run = "run"};
    place.name = strrchr(path, '/') + 1;
    fd = gd_state_directory_open_file(&place, now, &again, &error);
    cr_assert_geq(fd, 0, "%s", error.text);
    cr_expect_str_eq(again, path);
    cr_expect_eq(lseek(fd, 0, SEEK_END), 7);
    close(fd);
    free(again);

    cr_assert_eq(unlink(path), 0); // somebody has deleted it meanwhile
    fd = gd_state_directory_open_file(&place, now, &again, &error);
    cr_assert_geq(fd, 0, "%s", error.text);
    cr_expect_str_eq(again, path);
    cr_expect_eq(mode_of(path), 0600);
    cr_expect_eq(lseek(fd, 0, SEEK_END), 0);
    close(fd);
    free(again);

    cr_assert(unlink(path) == 0 && symlink("/etc/passwd", path) == 0);
    cr_expect_eq(gd_state_directory_open_file(&place, now, &again, &error), -EBADMSG);
    cr_expect(strstr(error.text, "event_file cannot be opened"), "%s", error.text);
    free(path);
}
