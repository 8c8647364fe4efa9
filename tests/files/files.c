// A run whose event file meets one kind of trouble after another, at random instants, beside one that has none: at the
// end both files must be the same, byte for byte.
//
// Usage: files [--faults N] [--seed S] [--failing-library FILE] -- DAEMON [ARGUMENT...]
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../stress/random.h"
#include "../stress/stress.h"
#include "../tools/remove_tree.h"

enum {
    DAEMON_ARGUMENTS_MAX = 16,
    DISK_BYTES = 96 << 20,
    NUMEL = 16,
    STEP_PAUSE_US = 1000,
    STEPS_BEFORE_MAX = 40,  // a fault begins
    STEPS_DURING_MAX = 150, // it: as many milliseconds, and at most a tenth of what the outbox holds
};

static const double PATIENCE_SECONDS = 120.0;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void pause_us(long microseconds) {
    const struct timespec pause = {.tv_nsec = microseconds * 1000};
    nanosleep(&pause, NULL);
}

// ---- the daemon

static _Noreturn void become_daemon(const struct files *files) {
    char socket_option[] = "--socket", *arguments[DAEMON_ARGUMENTS_MAX + 3];
    size_t count = 0;
    for (; files->command[count] && count < DAEMON_ARGUMENTS_MAX; count++)
        arguments[count] = files->command[count];
    arguments[count++] = socket_option;
    arguments[count++] = (char *)(uintptr_t)files->socket;
    arguments[count] = NULL;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int log = open(files->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    dup2(log, STDERR_FILENO);
    if (files->library)
        setenv("LD_PRELOAD", files->library, 1);
    execvp(arguments[0], arguments);
    _exit(127);
}

int files_start_daemon(struct files *files) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", files->socket);
    files->daemon = fork();
    if (files->daemon == 0)
        become_daemon(files);
    for (double start = now(); now() - start < PATIENCE_SECONDS; pause_us(1000)) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool up = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
        close(fd);
        if (up)
            return 0;
        if (waitpid(files->daemon, NULL, WNOHANG) != 0)
            return stress_fail("the daemon ended at once");
    }
    return stress_fail("the daemon does not listen");
}

int files_kill_daemon(struct files *files) {
    int status;
    kill(files->daemon, SIGKILL);
    if (waitpid(files->daemon, &status, 0) != files->daemon)
        return stress_fail("waitpid: %s", strerror(errno));
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
               ? 0
               : stress_fail("the daemon had ended by itself: 0x%x", (unsigned)status);
}

static int stop_daemon(const struct files *files) {
    int status;
    kill(files->daemon, SIGTERM);
    waitpid(files->daemon, &status, 0);
    return status == 0 ? 0 : stress_fail("the daemon's wait status is 0x%x", (unsigned)status);
}

// ---- the runs

static int open_run(const struct files *files, const char *logdir, const char *name, struct gradientd_run **ret_run,
                    int *ret_fd) {
    static const struct gradientd_group groups[] = {{.name = "weights", .numel = NUMEL}};
    static const struct gradientd_parameter_group rates[] = {{.beta2 = 0.999, .eps = 1e-8}};
    struct gradientd_options options = gradientd_options_default();
    struct gradientd_error error;
    options.socket = files->socket;
    options.logdir = logdir;
    options.run = name;
    options.groups = groups;
    options.n_groups = 1;
    options.parameter_groups = rates;
    options.n_parameter_groups = 1;
    options.optimizer.rule = GRADIENTD_ADAM;
    options.wall_time = 1.7e9;
    options.connect_timeout = options.max_stall = options.close_timeout = PATIENCE_SECONDS;
    if (gradientd_open(&options, ret_run, &error) < 0)
        return stress_fail("%s: %s", name, error.text);
    *ret_fd = open(gradientd_event_path(*ret_run), O_RDWR | O_CLOEXEC);
    return *ret_fd >= 0 ? 0 : stress_fail("%s: %s", gradientd_event_path(*ret_run), strerror(errno));
}

static int submit(struct gradientd_run *run, int64_t number) {
    static const double learning_rate = 0.01;
    const struct gradientd_scalar loss = {"train/loss", 1.0f / (float)number};
    const struct gradientd_step step = {
        .step = number,
        .learning_rates = &learning_rate,
        .optimizer_step = (uint64_t)number,
        .wall_time = 1.7e9 + (double)number,
        .scalars = &loss,
        .n_scalars = 1,
    };
    float gradient[NUMEL];
    for (int i = 0; i < NUMEL; i++)
        gradient[i] = (float)((number * 7 + i * 3) % 23 - 11) + 0.5f;
    int result = gradientd_submit(run, &step, (const void *[]){gradient});
    return result == GRADIENTD_OK
               ? 0
               : stress_fail("step %lld: %d %s", (long long)number, result, gradientd_last_error(run));
}

int files_train(struct files *files, uint32_t steps) {
    for (; steps > 0; steps--) {
        files->step++;
        if (submit(files->beside, files->step) < 0 || submit(files->faulty, files->step) < 0)
            return -1;
        pause_us(STEP_PAUSE_US);
    }
    return 0;
}

int files_catch_up(struct files *files) {
    struct stat faulty, beside;
    for (double start = now(); now() - start < PATIENCE_SECONDS;) {
        if (files_train(files, 1) < 0)
            return -1;
        if (fstat(files->faulty_fd, &faulty) == 0 && fstat(files->beside_fd, &beside) == 0 &&
            faulty.st_size >= beside.st_size)
            return 0;
    }
    return stress_fail("the run's file stays behind");
}

// ---- what is played, and what must come of it

static bool is_possible(const struct files *files, int kind) {
    return !files_faults[kind].is_possible || files_faults[kind].is_possible(files);
}

// One of the kinds that were played least.
static int draw_kind(struct files *files, const uint32_t played[FILES_FAULTS]) {
    uint32_t least = UINT32_MAX;
    for (int kind = 0; kind < FILES_FAULTS; kind++)
        if (is_possible(files, kind) && played[kind] < least)
            least = played[kind];
    for (;;) {
        int kind = (int)stress_random_below(&files->random, FILES_FAULTS);
        if (is_possible(files, kind) && played[kind] == least)
            return kind;
    }
}

// While the daemon is dead no step waits for it: the client would.
static int play(struct files *files, const struct files_fault *fault) {
    uint32_t before = stress_random_below(&files->random, STEPS_BEFORE_MAX);
    uint32_t during = stress_random_below(&files->random, STEPS_DURING_MAX);
    if (files_train(files, before) < 0)
        return -1;
    pause_us(stress_random_below(&files->random, 1000));
    if (fault->begin(files) < 0)
        return -1;
    if (fault->end != files_start_daemon && files_train(files, during) < 0)
        return -1;
    return fault->end && fault->end(files) < 0 ? -1 : 0;
}

static int play_all(struct files *files, uint32_t faults) {
    uint32_t played[FILES_FAULTS] = {0};
    for (uint32_t i = 0; i < faults; i++) {
        int kind = draw_kind(files, played);
        played[kind]++;
        if (play(files, &files_faults[kind]) < 0)
            return stress_fail("fault %u: %s", i, files_faults[kind].name);
    }
    for (int i = 0; i < FILES_FAULTS; i++)
        if (played[i] > 0)
            printf("ok: %s: %u times\n", files_faults[i].name, played[i]);
        else
            printf("not played: %s%s%s\n", files_faults[i].name, files_faults[i].needs ? ": needs " : "",
                   files_faults[i].needs ? files_faults[i].needs : "");
    return 0;
}

static int compare(const struct files *files) {
    static uint8_t faulty[65536], beside[65536];
    uint64_t offset = 0;
    ssize_t faulty_bytes, beside_bytes;
    do {
        faulty_bytes = pread(files->faulty_fd, faulty, sizeof(faulty), (off_t)offset);
        beside_bytes = pread(files->beside_fd, beside, sizeof(beside), (off_t)offset);
        if (faulty_bytes < 0 || faulty_bytes != beside_bytes || memcmp(faulty, beside, (size_t)faulty_bytes) != 0)
            return stress_fail("the files differ from byte %llu on, or end there", (unsigned long long)offset);
        offset += (uint64_t)faulty_bytes;
    } while (faulty_bytes > 0);
    if (offset == 0)
        return stress_fail("the files are empty");
    printf("ok: %llu bytes are the same after %lld steps\n", (unsigned long long)offset, (long long)files->step);
    return 0;
}

// Trouble has at most two lines when it begins (of a batch that failed, and of bytes that went), and one at its end.
static int check_log(const struct files *files, uint32_t faults) {
    char line[2048];
    uint32_t begins = 0, ends = 0, lost = 0, others = 0;
    FILE *log = fopen(files->log, "re");
    while (log && fgets(line, sizeof(line), log)) {
        begins += strstr(line, "not written at byte") || strstr(line, "cut off at byte");
        ends += strstr(line, "writing again at byte") != NULL;
        lost += strstr(line, "are lost") != NULL;
        others += strstr(line, "run faulty: event file: deleted") != NULL;
    }
    if (log)
        fclose(log);
    if (lost > 0 || begins > 2 * faults || ends > faults)
        return stress_fail("the log has %u lines of trouble, %u of its end, %u of lost records", begins, ends, lost);
    printf("ok: the log has %u lines of trouble and %u of its end, %u of a deleted file\n", begins, ends, others);
    return 0;
}

// ---- the whole

// A small disk for the faulty run, which this process alone sees; without the right to one the directory serves.
static int mount_disk(struct files *files) {
    char options[32];
    snprintf(options, sizeof(options), "size=%d", DISK_BYTES);
    if (mkdir(files->disk, 0700) < 0)
        return stress_fail("%s: %s", files->disk, strerror(errno));
    files->has_disk = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                      mount("none", files->disk, "tmpfs", 0, options) == 0;
    return 0;
}

static int map_control(struct files *files) {
    char path[FILES_PATH_BYTES];
    snprintf(path, sizeof(path), "%s/control", files->directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(*files->failing)) < 0)
        return stress_fail("%s: %s", path, strerror(errno));
    files->failing = mmap(NULL, sizeof(*files->failing), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (files->failing == MAP_FAILED)
        return stress_fail("mmap: %s", strerror(errno));
    snprintf(files->failing->name, sizeof(files->failing->name), "/faulty/");
    setenv("GRADIENTD_TEST_FAILING_FILES", path, 1);
    return 0;
}

static int run(struct files *files, uint32_t faults) {
    if (mount_disk(files) < 0 || map_control(files) < 0 || files_start_daemon(files) < 0 ||
        open_run(files, files->directory, "beside", &files->beside, &files->beside_fd) < 0 ||
        open_run(files, files->disk, "faulty", &files->faulty, &files->faulty_fd) < 0)
        return -1;
    snprintf(files->faulty_path, sizeof(files->faulty_path), "%s", gradientd_event_path(files->faulty));
    int result = play_all(files, faults);
    if (gradientd_close(files->faulty, GRADIENTD_SUCCESS) != GRADIENTD_OK ||
        gradientd_close(files->beside, GRADIENTD_SUCCESS) != GRADIENTD_OK)
        return stress_fail("a run's file was not completed");
    if (result < 0 || compare(files) < 0 || stop_daemon(files) < 0)
        return -1;
    return check_log(files, faults);
}

static void clean_up(const struct files *files, bool failed) {
    char command[FILES_PATH_BYTES + 16];
    snprintf(command, sizeof(command), "cat %s >&2", files->log);
    if (failed && system(command) != 0)
        fprintf(stderr, "no log\n");
    if (files->has_disk)
        umount2(files->disk, MNT_DETACH);
    remove_tree(files->directory);
}

static void parse(int argc, char **argv, struct files *files, uint32_t *faults) {
    static const struct option known[] = {
        {"faults", required_argument, NULL, 'f'},
        {"seed", required_argument, NULL, 's'},
        {"failing-library", required_argument, NULL, 'l'},
        {0},
    };
    bool valid = true;
    for (int option; (option = getopt_long(argc, argv, "+", known, NULL)) != -1;) {
        if (option == 'f')
            *faults = (uint32_t)strtoul(optarg, NULL, 10);
        else if (option == 's')
            files->random = strtoull(optarg, NULL, 10);
        else if (option == 'l')
            files->library = optarg;
        else
            valid = false;
    }
    files->command = argv + optind;
    if (valid && optind < argc)
        return;
    fputs("usage: files [--faults N] [--seed S] [--failing-library FILE] -- DAEMON [ARGUMENT...]\n", stderr);
    exit(2);
}

int main(int argc, char **argv) {
    static struct files files = {.random = 1, .faulty_fd = -1, .beside_fd = -1};
    uint32_t faults = 40;
    parse(argc, argv, &files, &faults);
    unsigned long long seed = files.random;
    const char *scratch = getenv("TMPDIR");
    snprintf(files.directory, sizeof(files.directory), "%.80s/files-XXXXXX", scratch ? scratch : "/tmp");
    if (!mkdtemp(files.directory))
        return 1;
    snprintf(files.disk, sizeof(files.disk), "%s/disk", files.directory);
    snprintf(files.socket, sizeof(files.socket), "%s/socket", files.directory);
    snprintf(files.log, sizeof(files.log), "%s/daemon.log", files.directory);
    int result = run(&files, faults);
    printf("%s: seed %llu\n", result < 0 ? "FAILED" : "done", seed);
    clean_up(&files, result < 0);
    return result < 0;
}
