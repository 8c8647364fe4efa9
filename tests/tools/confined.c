// What the service's sandbox forbids, tried from inside: run as one of the commands of its unit.
//
//     confined USER PID
//
// USER is a name that must be found, PID a process of another user's that must not be seen. Prints `ok: WHAT` for each
// try that ends as it must; `failed: WHAT: ERROR, not ERROR` and status 1 for the others.
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <pwd.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TEXT_BYTES = 256, PAGE_BYTES = 4096 };

static bool all_good = true;

// `result` is what a system call returned: a negative one for failure. `expected`: an errno, 0 for success.
static void expect(const char *what, long result, int expected) {
    int got = result < 0 ? errno : 0;
    if (got == expected) {
        printf("ok: %s: %s\n", what, expected ? strerrorname_np(expected) : "works");
        return;
    }
    printf("failed: %s: %s, not %s\n", what, strerrorname_np(got), strerrorname_np(expected));
    all_good = false;
}

static void expect_create(const char *path, int expected) {
    char what[TEXT_BYTES];
    snprintf(what, sizeof(what), "creating %s", path);
    expect(what, open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), expected);
}

static void try_files(const char *state, const char *pid) {
    char path[TEXT_BYTES];
    expect_create("/usr/confined", EROFS);
    expect_create("/etc/confined", EROFS);
    expect_create("/var/lib/confined", EROFS);
    expect_create("/run/gradientd/confined", EROFS);
    expect_create("/run/lock/confined", EROFS);
    expect_create("/dev/shm/confined", EROFS);
    snprintf(path, sizeof(path), "%s/confined", state);
    expect_create(path, 0);
    expect("making it set-user-ID", chmod(path, S_ISUID | 0755), EPERM);
    expect("giving it away", chown(path, 0, 0), EPERM);
    expect("removing it", unlink(path), 0);
    expect("looking into /home", access("/home", R_OK), EACCES);
    expect("finding a disk", access("/dev/vda", F_OK), ENOENT);
    expect("finding /proc/meminfo", access("/proc/meminfo", F_OK), ENOENT);
    snprintf(path, sizeof(path), "/proc/%s", pid);
    expect("seeing another user's process", access(path, F_OK), ENOENT);
}

static void try_sockets(void) {
    expect("an Internet socket", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), EAFNOSUPPORT);
    expect("an IPv6 socket", socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0), EAFNOSUPPORT);
    expect("a netlink socket", socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0), EAFNOSUPPORT);
    expect("a packet socket", socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), EAFNOSUPPORT);
    expect("a Unix socket", socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), 0);
}

static void try_calls(void) {
    const struct rlimit limit = {1, 1};
    const struct sched_param priority = {.sched_priority = 1};
    expect("mounting", mount("none", "/tmp", "tmpfs", 0, NULL), EPERM);
    expect("a namespace of users", unshare(CLONE_NEWUSER), EPERM);
    expect("tracing", ptrace(PTRACE_TRACEME, 0, NULL, NULL), EPERM);
    expect("a key", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 1), EPERM);
    expect("io_uring", syscall(SYS_io_uring_setup, 1, NULL), EPERM);
    expect("BPF", syscall(SYS_bpf, 0, NULL, 0), EPERM);
    expect("another user's rights", setuid(getuid()), EPERM);
    expect("a limit by the old call", syscall(SYS_setrlimit, RLIMIT_NOFILE, &limit), EPERM);
    expect("real-time priority", sched_setscheduler(0, SCHED_FIFO, &priority), EPERM);
    expect("another personality", personality(ADDR_NO_RANDOMIZE), EPERM);
    expect("the machine's name", sethostname("confined", 8), EPERM);
}

static void try_memory(void) {
    void *both = mmap(NULL, PAGE_BYTES, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    expect("memory to write and run", both == MAP_FAILED ? -1 : 0, EPERM);
    void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    expect("running what was written", mprotect(page, PAGE_BYTES, PROT_READ | PROT_EXEC), EPERM);
}

int main(int argc, char **argv) {
    const char *directories = getenv("STATE_DIRECTORY");
    char state[TEXT_BYTES] = "";
    if (argc != 3 || !directories)
        return fprintf(stderr, "confined: usage: confined USER PID, with STATE_DIRECTORY\n"), EXIT_FAILURE;
    snprintf(state, sizeof(state), "%.*s", (int)strcspn(directories, ":"), directories);
    try_files(state, argv[2]);
    try_sockets();
    try_calls();
    try_memory();
    errno = ENOENT;
    expect("looking up a user", getpwnam(argv[1]) ? 0 : -1, 0);
    return all_good ? EXIT_SUCCESS : EXIT_FAILURE;
}
