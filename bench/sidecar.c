#include "sidecar.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void pause_ms(long milliseconds) {
    nanosleep(&(struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000}, NULL);
}

// A socket's file may be there before it listens, or be left by a daemon that was killed.
static bool is_listening(const struct bench_daemon *daemon) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, daemon->socket, sizeof(daemon->socket));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        bench_fail("socket: %s", strerror(errno));
    bool listening = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return listening;
}

static _Noreturn void become_daemon(const struct bench_daemon *daemon, const struct bench_settings *settings) {
    char log[BENCH_PATH_BYTES];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(log, sizeof(log), "%.90s/log", daemon->directory);
    if (!freopen(log, "w", stderr))
        _exit(127);
    execl(settings->daemon, settings->daemon, "--socket", daemon->socket, "--connections-per-user", "1024",
          "--runs-per-user", "1024", "--fds-per-user", "8192", "--memory-per-user", "80%", "--messages-per-second",
          "100000000", (char *)NULL);
    _exit(127);
}

void bench_daemon_start(struct bench_daemon *daemon, const struct bench_settings *settings) {
    *daemon = (struct bench_daemon){.pid = 0};
    snprintf(daemon->directory, sizeof(daemon->directory), "/tmp/gradientd-bench-XXXXXX");
    if (!mkdtemp(daemon->directory))
        bench_fail("mkdtemp: %s", strerror(errno));
    snprintf(daemon->socket, sizeof(daemon->socket), "%.90s/socket", daemon->directory);
    bench_daemon_restart(daemon, settings);
}

void bench_daemon_restart(struct bench_daemon *daemon, const struct bench_settings *settings) {
    daemon->pid = fork();
    if (daemon->pid < 0)
        bench_fail("fork: %s", strerror(errno));
    if (daemon->pid == 0)
        become_daemon(daemon, settings);
    for (int tries = 0; !is_listening(daemon); tries++) {
        if (waitpid(daemon->pid, NULL, WNOHANG) != 0 || tries == 1000)
            bench_fail("%s does not listen; see %s/log", settings->daemon, daemon->directory);
        pause_ms(5);
    }
}

void bench_daemon_kill(struct bench_daemon *daemon) {
    kill(daemon->pid, SIGKILL);
    if (waitpid(daemon->pid, NULL, 0) < 0)
        bench_fail("waitpid: %s", strerror(errno));
}

void bench_daemon_freeze(const struct bench_daemon *daemon) {
    int status;
    kill(daemon->pid, SIGSTOP);
    if (waitpid(daemon->pid, &status, WUNTRACED) < 0 || !WIFSTOPPED(status))
        bench_fail("the daemon does not stop; see %s/log", daemon->directory);
}

void bench_daemon_thaw(const struct bench_daemon *daemon) {
    kill(daemon->pid, SIGCONT);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status, (void)type, (void)walk;
    return remove(path);
}

void bench_daemon_stop(struct bench_daemon *daemon) {
    int status;
    kill(daemon->pid, SIGTERM);
    if (waitpid(daemon->pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        bench_fail("the daemon ended badly; see %s/log", daemon->directory);
    nftw(daemon->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

// The number that the first line of a file with `prefix` goes on with; 0 where there is none.
static double read_number(const char *path, const char *prefix) {
    char line[256];
    double number = 0.0;
    FILE *file = fopen(path, "re");

    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, prefix, strlen(prefix)) != 0)
            continue;
        number = strtod(line + strlen(prefix), NULL);
        break;
    }
    if (file)
        fclose(file);
    return number;
}

double bench_cpu_seconds(pid_t pid) {
    char pattern[64];
    glob_t threads;
    double nanoseconds = 0.0;

    snprintf(pattern, sizeof(pattern), "/proc/%d/task/*/schedstat", (int)pid);
    if (glob(pattern, 0, NULL, &threads) != 0)
        return 0.0;
    for (size_t i = 0; i < threads.gl_pathc; i++)
        nanoseconds += read_number(threads.gl_pathv[i], ""); // 0 of a thread that has ended
    globfree(&threads);
    return nanoseconds * 1e-9;
}

double bench_private_kib(pid_t pid) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    return read_number(path, "Anonymous:");
}

// Quiet several times running: once, it may just have been without a processor.
// Whether a thread of the daemon's is running, or waits for a processor, as it may for long on a busy machine.
static bool wants_to_run(const struct bench_daemon *daemon) {
    char path[64], state = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)daemon->pid);
    DIR *threads = opendir(path);
    for (struct dirent *thread; threads && state != 'R' && (thread = readdir(threads));) {
        char stat_path[sizeof(path) + sizeof(thread->d_name) + 8];
        snprintf(stat_path, sizeof(stat_path), "%s/%s/stat", path, thread->d_name);
        FILE *file = thread->d_name[0] == '.' ? NULL : fopen(stat_path, "re");
        if (file && fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
            state = 0;
        if (file)
            fclose(file);
    }
    if (threads)
        closedir(threads);
    return state == 'R';
}

void bench_daemon_wait_idle(const struct bench_daemon *daemon) {
    enum { QUIET_MS = 3, QUIET_TIMES = 3 };
    double before, after = bench_cpu_seconds(daemon->pid);
    if (!(after > 0.0))
        bench_fail("this kernel does not tell a process's CPU time in /proc/%d/schedstat", (int)daemon->pid);
    for (int quiet = 0; quiet < QUIET_TIMES;) {
        before = after;
        pause_ms(QUIET_MS);
        after = bench_cpu_seconds(daemon->pid);
        quiet = after - before > 1e-4 || wants_to_run(daemon) ? 0 : quiet + 1;
    }
}

void bench_model_init(struct bench_model *model, uint64_t elements, uint32_t n_groups, size_t element_bytes) {
    *model = (struct bench_model){.elements = elements, .n_groups = n_groups};
    model->buffer_bytes = elements * element_bytes;
    model->groups = calloc(n_groups, sizeof(*model->groups));
    model->names = calloc(n_groups, sizeof(*model->names));
    model->gradients = calloc(n_groups, sizeof(*model->gradients));
    model->buffer = mmap(NULL, model->buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!model->groups || !model->names || !model->gradients || model->buffer == MAP_FAILED)
        bench_fail("out of memory for a model of %llu elements", (unsigned long long)elements);
    for (uint32_t i = 0; i < n_groups; i++) {
        uint64_t first = elements * i / n_groups, end = elements * (i + 1) / n_groups;
        snprintf(model->names[i], sizeof(model->names[i]), "tensor%u", i);
        model->groups[i] = (struct gradientd_group){.name = model->names[i], .numel = end - first};
        model->gradients[i] = model->buffer + first * element_bytes;
    }
    if (element_bytes == sizeof(float))
        for (uint64_t i = 0; i < elements; i++)
            ((float *)(void *)model->buffer)[i] = 1e-3f * (float)((i * 2654435761u >> 7 & 1023) + 1);
    else
        memset(model->buffer, 0x3c, model->buffer_bytes); // finite in every type
}

void bench_model_deinit(struct bench_model *model) {
    munmap(model->buffer, model->buffer_bytes);
    free(model->groups);
    free(model->names);
    free(model->gradients);
}

struct gradientd_options bench_options(const struct bench_model *model, const struct bench_daemon *daemon,
                                       const char *run) {
    static const struct gradientd_parameter_group adam = {.beta2 = 0.999, .eps = 1e-8};
    struct gradientd_options options = gradientd_options_default();
    options.logdir = daemon->directory;
    options.run = run;
    options.socket = daemon->socket;
    options.groups = model->groups;
    options.n_groups = model->n_groups;
    options.parameter_groups = &adam;
    options.n_parameter_groups = 1;
    options.optimizer.rule = GRADIENTD_ADAM;
    options.max_stall = 60.0; // what is measured must not be skipped
    options.close_timeout = 60.0;
    return options;
}

struct gradientd_run *bench_open(const struct gradientd_options *options) {
    struct gradientd_run *run;
    struct gradientd_error error;
    if (gradientd_open(options, &run, &error) < 0)
        bench_fail("%s", error.text);
    return run;
}

void bench_submit(struct gradientd_run *run, const struct bench_model *model, int64_t step) {
    static const double rate = 1e-3;
    struct gradientd_step description = {.step = step, .learning_rates = &rate};
    if (gradientd_submit(run, &description, model->gradients) != GRADIENTD_OK)
        bench_fail("a step was not taken: %s", gradientd_last_error(run));
}

void bench_close(struct gradientd_run *run) {
    if (gradientd_close(run, GRADIENTD_SUCCESS) != GRADIENTD_OK)
        bench_fail("an event file is not whole");
}
