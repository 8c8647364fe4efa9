// A recording, and what is replayed of it. The first byte's lowest bit asks for right checksums, which no mutation
// would hit; the rest is the recording, which need not be compressed.
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check_records.h"
#include "fuzz.h"
#include "mend_checksums.h"
#include "recording_reader.h"
#include "replay_run.h"

enum {
    RECORD_BYTES_MAX = 1 << 20,
    MEMORY_BYTES_MAX = 64 << 20,
    EVENT_BYTES_MAX = 64 << 20,
};

// A file of memory that holds the bytes.
static int make_file(const uint8_t *data, size_t bytes, bool mends) {
    int fd = memfd_create("fuzz_recording", MFD_CLOEXEC);
    uint8_t *copy = malloc(bytes + 1);
    assert(fd >= 0 && copy);
    memcpy(copy, data, bytes);
    if (mends)
        mend_checksums(copy, bytes);
    assert(write(fd, copy, bytes) == (ssize_t)bytes && lseek(fd, 0, SEEK_SET) == 0);
    free(copy);
    return fd;
}

static char event_path[] = "/tmp/fuzz_recording-XXXXXX";

static void remove_event_file(void) {
    unlink(event_path);
}

// An empty file with a name: of one without, the writer says each time that nobody sees it.
static int open_event_file(void) {
    static int fd = -1;
    if (fd < 0) {
        fd = mkstemp(event_path);
        atexit(remove_event_file);
    }
    int duplicate = dup(fd);
    assert(duplicate >= 0 && ftruncate(duplicate, 0) == 0);
    return duplicate;
}

// Whatever was replayed, the event file has whole records.
static void check_event_file(int fd) {
    struct stat status;
    assert(fstat(fd, &status) == 0 && status.st_size <= EVENT_BYTES_MAX);
    if (status.st_size > 0) {
        void *records = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        assert(records != MAP_FAILED);
        check_records(records, (uint64_t)status.st_size);
        munmap(records, (size_t)status.st_size);
    }
    close(fd);
}

static int open_run(struct gd_replay *replay, const struct gd_recorded *recorded, int event_fd) {
    struct gd_error error;
    struct gd_open_run *open_run;
    int result = gd_replay_decode_open_run(replay, recorded, &open_run, &error);
    if (result < 0)
        return result;
    return gd_replay_open_consume(replay, open_run, recorded->inline_elements != 0, dup(event_fd), &error);
}

// Takes the records as gradientctl replay does, but that what the run refuses is no end. Returns whether it has begun.
static bool replay_records(struct gd_recording_reader *reader, struct gd_replay *replay, int event_fd) {
    struct gd_recorded recorded;
    struct gd_error error;
    uint64_t number = 0;
    while (gd_recording_read(reader, &recorded) == GD_RECORDING_READ) {
        assert(reader->number == ++number);
        bool is_submission = recorded.kind > GD_RECORDED_OPEN_RUN && recorded.kind < GD_RECORDED_END;
        if (recorded.kind == GD_RECORDED_OPEN_RUN && !replay->run && open_run(replay, &recorded, event_fd) < 0)
            return false;
        if (is_submission && replay->run && gd_replay_submit(replay, &recorded, &error) < 0 && replay->run->arriving)
            break; // as after a payload that is not right
    }
    return replay->run != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const struct gd_kernels *kernels;
    struct gd_recording_reader reader;
    struct gd_replay replay;
    if (bytes < 2 || (!kernels && gd_kernels_select("scalar", &kernels) < 0))
        return 0;
    int event_fd = open_event_file();
    int fd = make_file(data + 1, bytes - 1, data[0] & 1);
    int opened = gd_recording_reader_init_consume(&reader, fd, RECORD_BYTES_MAX);
    assert(opened == 0);
    int started = gd_replay_init(&replay, kernels, 1, MEMORY_BYTES_MAX);
    assert(started == 0);
    if (replay_records(&reader, &replay, event_fd)) {
        int ended = gd_replay_end(&replay, data[0] & 2);
        assert(ended == 0);
    }
    gd_replay_deinit(&replay);
    gd_recording_reader_deinit(&reader);
    check_event_file(event_fd);
    return 0;
}
