#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

void client_make_printable(char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

int client_fail(struct gradientd_error *error, int code, const char *format, ...) {
    va_list arguments;
    error->code = code;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof(error->text), format, arguments);
    va_end(arguments);
    client_make_printable(error->text);
    return -code;
}

static int allocate_messages(struct gradientd_run *run, const struct gradientd_options *options) {
    run->rates = calloc(run->n_parameter_groups, sizeof(*run->rates));
    run->rate_pointers = calloc(run->n_parameter_groups, sizeof(*run->rate_pointers));
    run->scalars = calloc(GRADIENTD_USER_TAGS_MAX, sizeof(*run->scalars));
    run->scalar_pointers = calloc(GRADIENTD_USER_TAGS_MAX, sizeof(*run->scalar_pointers));
    run->squared_norms = calloc(GRADIENTD_SQUARED_NORMS_MAX, sizeof(*run->squared_norms));
    run->squared_norm_pointers = calloc(GRADIENTD_SQUARED_NORMS_MAX, sizeof(*run->squared_norm_pointers));
    run->groups_present = calloc((run->n_groups + 7) / 8, 1);
    run->tag_indices = calloc(GRADIENTD_USER_TAGS_MAX, sizeof(*run->tag_indices));
    run->input = malloc(GRADIENTD_FRAME_HEADER_BYTES + GRADIENTD_MESSAGE_BYTES_MAX);
    if (!run->rates || !run->rate_pointers || !run->scalars || !run->scalar_pointers || !run->squared_norms ||
        !run->squared_norm_pointers || !run->groups_present || !run->tag_indices || !run->input)
        return -ENOMEM;

    for (uint32_t i = 0; i < run->n_parameter_groups; i++) {
        gradientd__parameter_group_step__init(&run->rates[i]);
        run->rates[i].beta2 = options->parameter_groups[i].beta2;
        run->rates[i].eps = options->parameter_groups[i].eps;
        run->rate_pointers[i] = &run->rates[i];
    }
    for (uint32_t i = 0; i < GRADIENTD_USER_TAGS_MAX; i++) {
        gradientd__scalar__init(&run->scalars[i]);
        run->scalar_pointers[i] = &run->scalars[i];
    }
    for (uint32_t i = 0; i < GRADIENTD_SQUARED_NORMS_MAX; i++) {
        gradientd__squared_norm__init(&run->squared_norms[i]);
        run->squared_norm_pointers[i] = &run->squared_norms[i];
    }
    return 0;
}

// One page that reads 1 here and 0 in a forked child: no system call is needed to tell them apart.
static int allocate_alive_page(struct gradientd_run *run) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -ENOMEM;
    run->alive = memory;
    if (madvise(memory, page, MADV_WIPEONFORK) < 0)
        return -errno;
    *run->alive = 1;
    return 0;
}

static int allocate(struct gradientd_run *run, const struct gradientd_options *options) {
    run->n_groups = (uint32_t)options->n_groups;
    run->n_parameter_groups = (uint32_t)options->n_parameter_groups;
    run->groups = calloc(run->n_groups, sizeof(*run->groups));
    if (!run->groups)
        return -ENOMEM;
    for (uint32_t i = 0; i < run->n_groups; i++) {
        run->groups[i] = (struct client_group){.numel = options->groups[i].numel, .offset = run->elements};
        run->elements += options->groups[i].numel;
    }
    run->vector = client_vector_of(options->element_type);
    client_sides_init(run, options);
    int result = gd_user_tags_new(&run->tags);
    if (result == 0)
        result = client_alerts_new(&run->alerts);
    if (result == 0)
        result = allocate_alive_page(run);
    if (result == 0)
        result = client_output_init(&run->output);
    if (result == 0 && options->transport != GRADIENTD_SHARED_MEMORY)
        result = client_inline_init(run, options);
    if (result == 0 && options->copy_threads > 1)
        result = client_gather_new(run, options->copy_threads, &run->gather);
    if (result == 0)
        result = client_way_back_remember(&run->way_back, options);
    return result < 0 ? result : allocate_messages(run, options);
}

// Frees everything; in a forked child too, where the socket and the memory are the parent's.
static void free_run(struct gradientd_run *run) {
    if (run->socket >= 0)
        close(run->socket);
    if (run->alive && *run->alive) { // a child has neither the threads nor the mapping
        client_gather_free(run->gather);
        client_renewal_free(run->way_back.renewal);
        if (run->memory)
            munmap(run->memory, run->memory_bytes);
    }
    if (run->alive)
        munmap(run->alive, (size_t)sysconf(_SC_PAGESIZE));
    gd_user_tags_free(run->tags);
    client_alerts_free(run->alerts);
    free(run->slots.used_sequence);
    client_sides_unmap(run);
    free(run->groups);
    free(run->rates);
    free(run->rate_pointers);
    free(run->scalars);
    free(run->scalar_pointers);
    free(run->squared_norms);
    free(run->squared_norm_pointers);
    free(run->groups_present);
    free(run->tag_indices);
    client_output_deinit(&run->output);
    client_inline_deinit(&run->in_line);
    client_way_back_deinit(&run->way_back);
    free(run->input);
    free(run->event_path);
    free(run);
}

// Connects. A daemon whose backlog is full gets as long as it takes to answer what is in it, within *timeout, of which
// the rest is left.
static int connect_within(const struct gradientd_options *options, double *timeout, struct gradientd_error *ret_error) {
    static const struct timespec pause = {.tv_nsec = 1000000};
    int fd = client_connect(options->socket, options->private_daemon, options->daemon_path, ret_error);
    double deadline = client_now_monotonic() + *timeout;
    while (fd == -EAGAIN && client_now_monotonic() < deadline) {
        nanosleep(&pause, NULL);
        fd = client_connect(options->socket, options->private_daemon, options->daemon_path, ret_error);
    }
    double left = deadline - client_now_monotonic();
    *timeout = left > 0.0 ? left : 0.0;
    return fd;
}

// Options that are right. On failure *ret_run is untouched.
static int open_once(const struct gradientd_options *options, struct gradientd_run **ret_run,
                     struct gradientd_error *error) {
    struct gradientd_run *run = calloc(1, sizeof(*run));
    if (!run)
        return client_fail(error, ENOMEM, "out of memory");
    *run = (struct gradientd_run){
        .socket = -1,
        .acquired = -1,
        .step = -1,
        .snapshot_step = -1,
        .first_step = options->first_step,
        .optimizer_step = options->start_optimizer_step,
        .max_stall = options->max_stall,
        .close_timeout = options->close_timeout,
        .warn = options->warn,
        .warn_context = options->warn_context,
    };
    client_way_back_init(&run->way_back);
    int result = allocate(run, options);
    if (result < 0)
        client_fail(error, -result, "a run of %u groups cannot be set up: %s", run->n_groups, strerror(-result));
    struct gradientd_options attach_options = *options;
    if (result == 0)
        result = run->socket = connect_within(options, &attach_options.connect_timeout, error);
    if (result >= 0)
        result = client_attach(run, &attach_options, error);
    if (result < 0) {
        free_run(run);
        return result;
    }
    *ret_run = run;
    return 0;
}

int gradientd_open(const struct gradientd_options *options, struct gradientd_run **ret_run,
                   struct gradientd_error *ret_error) {
    struct gradientd_error ignored, second;
    struct gradientd_error *error = ret_error ? ret_error : &ignored;

    *ret_run = NULL;
    int result = gradientd_check(options, error);
    if (result == 0)
        result = open_once(options, ret_run, error);
    // A daemon that is restarted in the middle of this, for an upgrade: the next one knows nothing of it.
    if ((result == -ECONNRESET || result == -EPIPE) && open_once(options, ret_run, &second) == 0)
        result = 0;
    return result;
}

int gradientd_close(struct gradientd_run *run, enum gradientd_outcome outcome) {
    if (!run)
        return GRADIENTD_DETACHED;
    int result = client_end(run, outcome);
    free_run(run);
    return result;
}
