// Who may read what the daemon keeps for another user: that user and the admin group, by ACLs, and nobody else.
#include <acl/libacl.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/acl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tools/remove_tree.h"
#include "state_directory.h"
#include "support.h"

enum { PATH_BYTES = 512, USER = 54321, OTHER_USER = 54322, GROUP = 4321, OTHER_GROUP = 4322 };

static char directory[] = "/tmp/gradientd-test-XXXXXX";
static int fds;
static int refusal; // errno of a file system that refuses all ACLs; 0: the real one

int __real_acl_set_file(const char *path, acl_type_t type, acl_t acl);
int __wrap_acl_set_file(const char *path, acl_type_t type, acl_t acl);

int __wrap_acl_set_file(const char *path, acl_type_t type, acl_t acl) {
    if (refusal == 0)
        return __real_acl_set_file(path, type, acl);
    errno = refusal;
    return -1;
}

static void set_up(void) {
    cr_assert_not_null(mkdtemp(directory));
    cr_assert_eq(chmod(directory, 0755), 0);
    umask(0077); // the service's
    fds = count_fds();
}

static void tear_down(void) {
    cr_expect_eq(count_fds(), fds, "a descriptor leaked");
    remove_tree(directory);
}

TestSuite(folder_acl, .init = set_up, .fini = tear_down);

// A file of USER's run with a byte in it, which is in the directory; its path, the caller's.
static char *create(const char *run, gid_t admin_group) {
    char *path;
    struct gd_error error;
    struct gd_event_place place = {
        .state_directory = directory, .uid = USER, .pid = 77, .admin_group = admin_group, .run = run, .name = ""};
    int fd = gd_state_directory_open_file(&place, 1.7e9, &path, &error);
    cr_assert_geq(fd, 0, "%s", error.text);
    cr_assert_eq(write(fd, "x", 1), 1);
    close(fd);
    return path;
}

// "<directory>/54321/<rest>", valid until the next call.
static const char *in_folder(const char *rest) {
    static char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%s/%d/%s", directory, USER, rest);
    return path;
}

static void expect_acl(const char *path, acl_type_t type, const char *expected) {
    acl_t acl = acl_get_file(path, type);
    cr_assert_not_null(acl, "%s: %s", path, strerror(errno));
    char *text = acl_to_any_text(acl, NULL, ',', TEXT_NUMERIC_IDS | TEXT_ABBREVIATE);
    cr_expect_str_eq(text, expected, "%s: %s", path, text);
    acl_free(text);
    acl_free(acl);
}

static void expect_directory(const char *path, const char *expected) {
    expect_acl(path, ACL_TYPE_ACCESS, expected);
    expect_acl(path, ACL_TYPE_DEFAULT, expected);
}

Test(folder_acl, the_user_alone_may_read) {
    const char *expected = "u::rwx,u:54321:r-x,g::---,m::r-x,o::---";
    char *path = create("vision/run", (gid_t)-1);
    expect_directory(in_folder(""), expected);
    expect_directory(in_folder("vision"), expected);
    expect_directory(in_folder("vision/run"), expected);
    expect_acl(path, ACL_TYPE_ACCESS, "u::rw-,u:54321:r-x,g::---,m::r--,o::---"); // as the mask has it: r--
    free(path);
}

Test(folder_acl, with_an_admin_group_it_may_too) {
    const char *expected = "u::rwx,u:54321:r-x,g::---,g:4321:r-x,m::r-x,o::---";
    char *path = create("run", GROUP);
    expect_directory(in_folder(""), expected);
    expect_directory(in_folder("run"), expected);
    expect_acl(path, ACL_TYPE_ACCESS, "u::rw-,u:54321:r-x,g::---,g:4321:r-x,m::r--,o::---");
    free(path);
}

// What a user with a primary and another group can do to a file: a letter for each.
static const char *rights_of(const char *path, uid_t user, gid_t group) {
    static const char *const texts[] = {"", "r", "w", "rw"};
    char renamed[PATH_BYTES];
    snprintf(renamed, sizeof(renamed), "%s.renamed", path);
    pid_t child = fork();
    if (child == 0) {
        if (setgroups(1, &group) < 0 || setgid(OTHER_GROUP) < 0 || setuid(user) < 0)
            _exit(EXIT_FAILURE << 2);
        int reads = open(path, O_RDONLY | O_CLOEXEC) >= 0;
        int writes = open(path, O_WRONLY | O_CLOEXEC) >= 0 || rename(path, renamed) == 0 || unlink(path) == 0;
        _exit(reads | writes << 1);
    }
    int status;
    cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) <= 3, "0x%x", status);
    return texts[WEXITSTATUS(status)];
}

Test(folder_acl, who_may_read_cannot_write_and_nobody_else_gets_in) {
    if (geteuid() != 0)
        cr_skip("only root can be another user");
    char *path = create("vision/run", GROUP);
    cr_expect_str_eq(rights_of(path, USER, OTHER_GROUP), "r");
    cr_expect_str_eq(rights_of(path, OTHER_USER, GROUP), "r");
    cr_expect_str_eq(rights_of(path, OTHER_USER, OTHER_GROUP), "");
    cr_expect_str_eq(rights_of(path, OTHER_USER, 0), "", "nor the daemon's own group");
    free(path);
}

static void make_file(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
    close(fd);
}

// As daemons made them that knew no ACLs.
Test(folder_acl, what_is_there_already_is_opened_to_the_user) {
    char outside[PATH_BYTES];
    snprintf(outside, sizeof(outside), "%s/outside", directory);
    make_file(outside);
    cr_assert_eq(mkdir(in_folder(""), 0700), 0);
    cr_assert_eq(mkdir(in_folder("old"), 0700), 0);
    make_file(in_folder("old/file"));
    make_file(in_folder("file"));
    cr_assert_eq(symlink("../outside", in_folder("link")), 0);
    free(create("run", (gid_t)-1));
    expect_directory(in_folder("old"), "u::rwx,u:54321:r-x,g::---,m::r-x,o::---");
    expect_acl(in_folder("old/file"), ACL_TYPE_ACCESS, "u::rw-,u:54321:r--,g::---,m::r--,o::---");
    expect_acl(in_folder("file"), ACL_TYPE_ACCESS, "u::rw-,u:54321:r--,g::---,m::r--,o::---");
    expect_acl(outside, ACL_TYPE_ACCESS, "u::rw-,g::---,o::---");
}

Test(folder_acl, another_admin_group_takes_the_place_of_the_first) {
    char *path = create("run", GROUP);
    free(create("run", OTHER_GROUP));
    expect_directory(in_folder(""), "u::rwx,u:54321:r-x,g::---,g:4322:r-x,m::r-x,o::---");
    expect_acl(path, ACL_TYPE_ACCESS, "u::rw-,u:54321:r--,g::---,g:4322:r--,m::r--,o::---");
    free(create("run", (gid_t)-1));
    expect_acl(path, ACL_TYPE_ACCESS, "u::rw-,u:54321:r--,g::---,m::r--,o::---");
    free(path);
}

// Only what differs is gone through: a folder may hold the files of years.
Test(folder_acl, a_folder_that_has_its_acl_is_left_alone) {
    free(create("run", GROUP));
    refusal = EIO; // it would be said
    char *path = create("run", GROUP);
    expect_acl(path, ACL_TYPE_ACCESS, "u::rw-,u:54321:r-x,g::---,g:4321:r-x,m::r--,o::---");
    free(path);
}

Test(folder_acl, without_acls_the_file_is_the_daemons_alone) {
    struct stat status;
    refusal = EOPNOTSUPP;
    umask(0);
    char *path = create("run", GROUP);
    cr_assert_eq(stat(path, &status), 0);
    cr_expect_eq(status.st_mode & 0777, 0600, "0%o", status.st_mode & 0777);
    cr_assert_eq(stat(in_folder("run"), &status), 0);
    cr_expect_eq(status.st_mode & 0777, 0700, "0%o", status.st_mode & 0777);
    free(path);
}
