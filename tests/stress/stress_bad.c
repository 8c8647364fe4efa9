#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "gradientd/client.h"
#include "random.h"
#include "stress.h"

enum {
    NUMEL = 30000,
    SEED_FILES_MAX = 256,
    SEED_BYTES_MAX = 64 << 10,
};

// The daemon's end is part of the play.
static void ignore_warning(void *context, const char *text) {
    (void)context;
    (void)text;
}

static struct gradientd_run *open_run(const struct stress_place *place, uint64_t seed) {
    static const struct gradientd_group group = {.name = "weights", .numel = NUMEL};
    static const struct gradientd_parameter_group rates = {.beta2 = 0.99, .eps = 1e-8};
    struct gradientd_options options = gradientd_options_default();
    struct gradientd_run *run;
    struct gradientd_error error;
    options.socket = place->socket;
    options.logdir = place->logdir;
    options.groups = &group;
    options.n_groups = 1;
    options.parameter_groups = &rates;
    options.n_parameter_groups = 1;
    options.optimizer.rule = GRADIENTD_ADAM;
    options.transport = seed % 4 == 0 ? GRADIENTD_INLINE : GRADIENTD_SHARED_MEMORY;
    options.connect_timeout = 120.0;
    options.max_stall = 1.0;
    options.warn = ignore_warning;
    if (gradientd_open(&options, &run, &error) < 0)
        stress_fail("gradientd_open: %s", error.text);
    return run;
}

static void submit_steps(struct gradientd_run *run, int64_t first, int64_t last) {
    static float gradient[NUMEL];
    static const double learning_rate = 1e-3;
    const void *gradients[] = {gradient};
    for (int64_t i = first; i <= last; i++) {
        struct gradientd_step step = {.step = i, .learning_rates = &learning_rate};
        gradient[i % NUMEL] = 1.0f;
        (void)!gradientd_submit(run, &step, gradients);
    }
}

int stress_train_endlessly(const struct stress_place *place, uint64_t seed) {
    struct gradientd_run *run = open_run(place, seed);
    if (!run)
        return -1;
    submit_steps(run, 1, 3);
    puts("training");
    fflush(stdout);
    submit_steps(run, 4, INT64_MAX);
    return -1;
}

// The client's connection: the only socket this process has.
static int find_socket(void) {
    for (int fd = 3; fd < 64; fd++) {
        struct stat status;
        if (fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode))
            return fd;
    }
    return -1;
}

static int connect_raw(const struct stress_place *place) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.*s", (int)sizeof(address.sun_path) - 1, place->socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        stress_fail("%s: %s", place->socket, strerror(errno));
    return fd;
}

// The fuzzer's seeds: a frame each.
static size_t list_seeds(char paths[SEED_FILES_MAX][512]) {
    size_t count = 0;
    DIR *entries = opendir(STRESS_CORPUS);
    if (!entries)
        return 0;
    for (struct dirent *entry; count < SEED_FILES_MAX && (entry = readdir(entries));)
        if (entry->d_name[0] != '.')
            snprintf(paths[count++], sizeof(paths[0]), "%s/%s", STRESS_CORPUS, entry->d_name);
    closedir(entries);
    return count;
}

static size_t read_seed(const char *path, uint8_t data[SEED_BYTES_MAX]) {
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    size_t bytes = fread(data, 1, SEED_BYTES_MAX, file);
    fclose(file);
    return bytes;
}

static void send_with_fds(int fd, const uint8_t *data, size_t bytes, uint32_t n_fds) {
    union {
        char bytes[CMSG_SPACE(4 * sizeof(int))];
        struct cmsghdr alignment;
    } control = {{0}};
    struct iovec vector = {(void *)(uintptr_t)data, bytes};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};
    if (n_fds > 0) {
        int fds[4] = {fd, fd, fd, fd}; // its own connection: a descriptor like others
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *first = CMSG_FIRSTHDR(&header);
        first->cmsg_level = SOL_SOCKET;
        first->cmsg_type = SCM_RIGHTS;
        first->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(first), fds, n_fds * sizeof(int));
    }
    (void)!sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// A few frames as the corpus has them, some of them cut or with a byte changed, some with descriptors.
static int send_junk(int fd, uint64_t *random) {
    static char paths[SEED_FILES_MAX][512];
    static uint8_t data[SEED_BYTES_MAX];
    size_t n_paths = list_seeds(paths);
    if (n_paths == 0)
        return stress_fail("no seeds in %s", STRESS_CORPUS);
    for (uint32_t left = 1 + stress_random_below(random, 6); left > 0; left--) {
        size_t bytes = read_seed(paths[stress_random_below(random, (uint32_t)n_paths)], data);
        uint32_t fds = stress_random_below(random, 4) ? 0 : 1 + stress_random_below(random, 4);
        if (bytes == 0)
            return stress_fail("an empty seed in %s", STRESS_CORPUS);
        if (stress_random_below(random, 3) == 0)
            data[stress_random_below(random, (uint32_t)bytes)] ^= (uint8_t)(1 + stress_random_below(random, 255));
        if (stress_random_below(random, 4) == 0)
            bytes = 1 + stress_random_below(random, (uint32_t)bytes);
        send_with_fds(fd, data, bytes, fds);
    }
    return 0;
}

int stress_break_protocol(const struct stress_place *place, uint64_t seed) {
    uint64_t random = seed;
    if (stress_random_below(&random, 2) == 0) {
        int fd = connect_raw(place);
        int result = fd < 0 ? -1 : send_junk(fd, &random);
        if (fd >= 0)
            close(fd);
        return result;
    }
    struct gradientd_run *run = open_run(place, seed);
    if (!run)
        return -1;
    submit_steps(run, 1, stress_random_below(&random, 12));
    int fd = find_socket();
    return fd < 0 ? stress_fail("no socket found") : send_junk(fd, &random); // the process ends with its run open
}
