// gradientctl replay: computes a recorded run again.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "command.h"
#include "event_path.h"
#include "json.h"
#include "printable.h"
#include "recording_reader.h"
#include "replay_run.h"

enum { FILE_MODE = 0666, DIRECTORY_MODE = 0777 };

struct options {
    const char *output; // NULL: next to the recording
    const char *logdir;
    uint32_t workers;
    bool force;
    bool json;
};

// One recording that is replayed.
struct job {
    const char *path;   // of the recording
    struct stat status; // likewise
    const struct options *options;
    struct gd_recording_reader reader;
    struct gd_replay replay;
    char *event_path; // owned, NULL: not there yet
    bool ended;       // the record that says so has come ...
    enum gd_recorded_outcome outcome;
    char refusal[GD_ERROR_TEXT_BYTES]; // "": none
    uint64_t refused_number;           // of the record that the run refused, 0: none
};

// Says what is wrong with the record that was read last.
static int blame_record(const struct job *job, const char *text) {
    fprintf(stderr, "gradientctl replay: %s: record %" PRIu64 ": %s\n", job->path, job->reader.number, text);
    return -EBADMSG;
}

static int blame(const char *path, int result) {
    fprintf(stderr, "gradientctl replay: %s: %s\n", path, strerror(-result));
    return result;
}

// What a call of the replay came to.
static int blame_call(const struct job *job, int result, const struct gd_error *error) {
    if (result == -EBADMSG)
        return blame_record(job, error->text);
    if (result == -ETIMEDOUT) {
        fprintf(stderr, "gradientctl replay: %s: cannot be written\n", job->event_path);
        return result;
    }
    return blame(job->path, result);
}

// ---- the event file

// Below the log directory, where the daemon's client would have it.
static int create_in_logdir(struct job *job, const struct gd_open_run *open_run) {
    char *directory = NULL, name[GD_EVENT_NAME_BYTES];
    if (asprintf(&directory, "%s/%s", job->options->logdir, open_run->run) < 0)
        return -ENOMEM;
    int result = gd_event_path_make_directories(directory, DIRECTORY_MODE);
    int directory_fd = result < 0 ? result : open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (result == 0 && directory_fd < 0)
        result = -errno;
    int fd = result < 0 ? result : gd_event_path_create(directory_fd, open_run->wall_time, getpid(), FILE_MODE, name);
    if (fd >= 0 && asprintf(&job->event_path, "%s/%s", directory, name) < 0)
        job->event_path = NULL;
    if (directory_fd >= 0)
        close(directory_fd);
    free(directory);
    return fd;
}

static int create_at(struct job *job) {
    int n = job->options->output ? asprintf(&job->event_path, "%s", job->options->output)
                                 : asprintf(&job->event_path, "%s.tfevents", job->path);
    if (n < 0)
        return -ENOMEM;
    int fd = open(job->event_path, O_RDWR | O_CREAT | O_CLOEXEC | (job->options->force ? 0 : O_EXCL), FILE_MODE);
    return fd < 0 ? -errno : fd;
}

// Empties what --force replaces. Returns NULL, or why it is left alone.
static const char *empty(const struct job *job, int fd) {
    struct stat status;
    if (fstat(fd, &status) < 0)
        return strerror(errno);
    if (!S_ISREG(status.st_mode))
        return "no regular file";
    if (status.st_dev == job->status.st_dev && status.st_ino == job->status.st_ino)
        return "is the recording itself";
    return ftruncate(fd, 0) < 0 ? strerror(errno) : NULL;
}

// A descriptor, or a negative errno, which was said.
static int create_event_file(struct job *job, const struct gd_open_run *open_run) {
    int fd = job->options->logdir ? create_in_logdir(job, open_run) : create_at(job);
    const char *problem = fd >= 0 ? empty(job, fd) : NULL;
    if (problem) {
        close(fd);
        fprintf(stderr, "gradientctl replay: %s: %s\n", job->event_path, problem);
        return -EINVAL;
    }
    if (fd >= 0)
        return fd;
    fprintf(stderr, "gradientctl replay: %s: %s%s\n", job->event_path ? job->event_path : job->options->logdir,
            strerror(-fd), fd == -EEXIST ? "; --force replaces it" : "");
    return fd;
}

// ---- records

// Reads the next record, which must be there. Returns 0 or a negative errno, which was said.
static int read_record(struct job *job, struct gd_recorded *ret_recorded) {
    int result = gd_recording_read(&job->reader, ret_recorded);
    switch (result) {
    case GD_RECORDING_READ:
        return 0;
    case GD_RECORDING_OVER:
    case GD_RECORDING_TORN:
        return blame_record(job, "the recording was cut off here");
    case GD_RECORDING_DAMAGED:
        return blame_record(job, job->reader.text);
    default:
        return blame(job->path, result);
    }
}

static int read_head(struct job *job) {
    struct gd_recorded recorded;
    int result = read_record(job, &recorded);
    if (result < 0)
        return result;
    if (recorded.kind != GD_RECORDED_RECORDING)
        return blame_record(job, "it is not the first of a recording");
    if (recorded.format == GD_RECORDING_FORMAT)
        return 0;
    char text[96];
    snprintf(text, sizeof(text), "the recording has format %" PRId64 ", this version reads %d", recorded.format,
             GD_RECORDING_FORMAT);
    return blame_record(job, text);
}

static int open_run(struct job *job) {
    struct gd_recorded recorded;
    struct gd_open_run *open_run;
    struct gd_error error;
    int result = read_record(job, &recorded);
    if (result < 0)
        return result;
    if (recorded.kind != GD_RECORDED_OPEN_RUN)
        return blame_record(job, "an OpenRun must be the second");
    result = gd_replay_decode_open_run(&job->replay, &recorded, &open_run, &error);
    if (result < 0)
        return blame_call(job, result, &error);
    int fd = create_event_file(job, open_run);
    if (fd < 0) {
        gd_open_run_free(open_run);
        return fd;
    }
    result = gd_replay_open_consume(&job->replay, open_run, recorded.inline_elements != 0, fd, &error);
    return result < 0 ? blame_call(job, result, &error) : 0;
}

// The run refuses a message as its daemon did, if the end says so too.
static void keep_refusal(struct job *job, const struct gd_error *error) {
    job->refused_number = job->reader.number;
    snprintf(job->refusal, sizeof(job->refusal), "%s", error->text);
}

static int take_submission(struct job *job, const struct gd_recorded *recorded) {
    struct gd_error error;
    if (job->refused_number > 0)
        return 0;
    int result = gd_replay_submit(&job->replay, recorded, &error);
    if (result == 0)
        return 0;
    if (!job->replay.refused)
        return blame_call(job, result, &error);
    keep_refusal(job, &error);
    return 0;
}

static void note_refusal(const struct job *job, const struct gd_recorded_bytes *text) {
    char reason[GD_ERROR_TEXT_BYTES];
    snprintf(reason, sizeof(reason), "%.*s", (int)text->bytes, text->data ? (const char *)text->data : "");
    fprintf(stderr, "gradientctl replay: %s: note: the daemon refused the run in the end: ", job->path);
    gd_printable_write(stderr, reason);
    putc('\n', stderr);
}

static int take_end(struct job *job, const struct gd_recorded *recorded) {
    struct gd_recorded none;
    job->outcome = recorded->outcome;
    if (job->refused_number > 0 && job->outcome != GD_RECORDED_REFUSED && job->outcome != GD_RECORDED_TRAINER_GONE)
        return -EBADMSG;
    if (job->outcome == GD_RECORDED_REFUSED)
        note_refusal(job, &recorded->text);
    int result = gd_recording_read(&job->reader, &none);
    if (result == GD_RECORDING_READ)
        return blame_record(job, "it comes after the end");
    if (result != GD_RECORDING_OVER)
        return blame_record(job, result == GD_RECORDING_DAMAGED ? job->reader.text : "the recording was cut off here");
    job->ended = true;
    return 0;
}

static int take_records(struct job *job) {
    struct gd_recorded recorded;
    int result = 0;
    while (result == 0 && !job->ended) {
        result = read_record(job, &recorded);
        if (result < 0)
            break;
        if (recorded.kind == GD_RECORDED_END)
            result = take_end(job, &recorded);
        else if (recorded.kind == GD_RECORDED_RECORDING || recorded.kind == GD_RECORDED_OPEN_RUN)
            result = blame_record(job, "a second beginning");
        else
            result = take_submission(job, &recorded);
    }
    return result;
}

// ---- the command

static void print_result(const struct job *job, bool whole) {
    const struct gd_run *run = job->replay.run;
    const char *name = run->open_run->run;
    if (!job->options->json) {
        printf("%s: run %s, %" PRIu64 " snapshots, %" PRIu64 " bytes\n", job->event_path, *name ? name : ".",
               run->state->snapshots, run->appended_bytes);
        return;
    }
    fputs("{\"recording\":", stdout);
    gd_json_print_text(job->path);
    fputs(",\"file\":", stdout);
    gd_json_print_text(job->event_path);
    fputs(",\"run\":", stdout);
    gd_json_print_text(name);
    printf(",\"snapshots\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"outcome\":", run->state->snapshots, run->appended_bytes);
    if (job->ended)
        gd_json_print_text(gd_recorded_outcome_name(job->outcome));
    else
        fputs("null", stdout);
    printf(",\"whole\":%s}\n", whole ? "true" : "false");
}

// The run refused a message, and its end does not say that the daemon did.
static void blame_refusal(struct job *job) {
    if (job->refused_number == 0)
        return;
    job->reader.number = job->refused_number;
    (void)blame_record(job, job->refusal);
}

// Replays what can be. Returns the exit status.
static int replay(struct job *job) {
    int result = read_head(job);
    if (result == 0)
        result = open_run(job);
    if (result < 0)
        return GD_EXIT_DAMAGE;
    result = take_records(job);
    if (result == -ETIMEDOUT) // it was waited for already
        return GD_EXIT_DAMAGE;
    if (result < 0)
        blame_refusal(job);
    bool open_ended = !job->ended || job->outcome == GD_RECORDED_LEFT;
    int end = gd_replay_end(&job->replay, open_ended);
    if (end < 0)
        (void)blame_call(job, end, NULL);
    bool whole = result == 0 && end == 0;
    print_result(job, whole);
    return whole ? GD_EXIT_DONE : GD_EXIT_DAMAGE;
}

static int replay_file(const char *path, const struct options *options, const struct gd_kernels *kernels) {
    struct job job = {.path = path, .options = options};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int result = fd < 0 || fstat(fd, &job.status) < 0
                     ? -errno
                     : gd_recording_reader_init_consume(&job.reader, fd, GD_RECORDED_BYTES_MAX);
    if (result < 0) {
        (void)blame(path, result);
        return GD_EXIT_DAMAGE;
    }
    uint64_t memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    result = gd_replay_init(&job.replay, kernels, options->workers, memory_bytes);
    int status = result < 0 ? GD_EXIT_DAMAGE : replay(&job);
    if (result < 0)
        (void)blame(path, result);
    gd_replay_deinit(&job.replay);
    gd_recording_reader_deinit(&job.reader);
    free(job.event_path);
    int flush_status = gd_command_flush();
    return status != GD_EXIT_DONE ? status : flush_status;
}

static uint32_t default_workers(void) {
    unsigned cores = uv_available_parallelism();
    return cores < GD_REPLAY_WORKERS_MAX ? cores : GD_REPLAY_WORKERS_MAX;
}

static bool read_workers(const char *text, uint32_t *ret_workers) {
    char *end;
    errno = 0;
    unsigned long workers = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || workers < 1 || workers > GD_REPLAY_WORKERS_MAX)
        return false;
    *ret_workers = (uint32_t)workers;
    return true;
}

// Reads the options. Returns GD_EXIT_DONE with optind at RECORDING, or GD_EXIT_USAGE.
static int read_options(const struct gd_command *command, int argc, char **argv, struct options *options) {
    enum { FORCE = 1, JSON, LOGDIR, OUTPUT, WORKERS };
    static const struct option known[] = {
        {"force", no_argument, NULL, FORCE},           {"json", no_argument, NULL, JSON},
        {"logdir", required_argument, NULL, LOGDIR},   {"output", required_argument, NULL, OUTPUT},
        {"workers", required_argument, NULL, WORKERS}, {0},
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "+", known, NULL)) != -1) {
        if (option == FORCE)
            options->force = true;
        else if (option == JSON)
            options->json = true;
        else if (option == LOGDIR)
            options->logdir = optarg;
        else if (option == OUTPUT)
            options->output = optarg;
        else if (option != WORKERS)
            return gd_command_usage_error(command, "unknown option, or one without its value: ", argv[optind - 1]);
        else if (!read_workers(optarg, &options->workers))
            return gd_command_usage_error(command, "--workers must be 1 to 64, it is ", optarg);
    }
    if (options->logdir && options->output)
        return gd_command_usage_error(command, "--output and --logdir exclude each other", "");
    return GD_EXIT_DONE;
}

int gd_replay_run(const struct gd_command *command, int n_arguments, char **arguments) {
    struct options options = {.workers = default_workers()};
    const struct gd_kernels *kernels;
    char **argv = arguments - 1; // with the command's name, as getopt has it
    int argc = n_arguments + 1;

    int status = read_options(command, argc, argv, &options);
    if (status != GD_EXIT_DONE)
        return status;
    if (argc - optind != 1)
        return gd_command_usage_error(command, "exactly one RECORDING is needed", "");
    const char *name = getenv("GRADIENTD_KERNELS");
    if (gd_kernels_select(name, &kernels) < 0)
        return gd_command_usage_error(command,
                                      "GRADIENTD_KERNELS is not a name of kernels that this machine runs: ", name);
    return replay_file(argv[optind], &options, kernels);
}
