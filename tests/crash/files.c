#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bytes.h"
#include "crash.h"
#include "record.h"
#include "tensorboard.pb-c.h"

int crash_files_compare(const char *path, const char *expected_path) {
    FILE *file = fopen(path, "rbe"), *expected = fopen(expected_path, "rbe");
    uint64_t at = 0;
    int result = file && expected ? 0 : crash_fail("%s: %s", file ? expected_path : path, strerror(errno));

    for (int byte = 0, other = 0; result == 0 && byte != EOF; at++) {
        byte = getc_unlocked(file);
        other = getc_unlocked(expected);
        if (byte != other)
            result = crash_fail("%s and %s differ at byte %llu", path, expected_path, (unsigned long long)at);
    }
    if (file)
        fclose(file);
    if (expected)
        fclose(expected);
    return result;
}

bool crash_file_is_torn(const char *path, uint64_t *boundary) {
    enum { AROUND_DATA_BYTES = 16 }; // length and its checksum before, the data's behind
    FILE *file = fopen(path, "rbe");
    struct stat status;
    uint8_t length[8];
    if (!file || fstat(fileno(file), &status) < 0)
        return false;
    while (fseeko(file, (off_t)*boundary, SEEK_SET) == 0 && fread(length, 1, sizeof(length), file) == sizeof(length) &&
           *boundary + gd_read_u64le(length) + AROUND_DATA_BYTES <= (uint64_t)status.st_size)
        *boundary += gd_read_u64le(length) + AROUND_DATA_BYTES;
    fclose(file);
    return *boundary < (uint64_t)status.st_size;
}

// Takes an event into account. Returns 0 or -1.
static int take_event(const uint8_t *data, size_t bytes, struct crash_file_content *content) {
    Tensorboard__Event *event = tensorboard__event__unpack(NULL, bytes, data);
    int result = event ? 0 : crash_fail("a record holds no event");

    if (event && event->what_case == TENSORBOARD__EVENT__WHAT_SUMMARY)
        for (size_t i = 0; i < event->summary->n_value; i++) {
            if (strcmp(event->summary->value[i]->tag, "train/loss") != 0)
                continue;
            if (event->step != content->steps + 1)
                result = crash_fail("step %lld follows on %lld", (long long)event->step, (long long)content->steps);
            content->steps = event->step;
        }
    if (event)
        content->ended = event->what_case == TENSORBOARD__EVENT__WHAT_SESSION_LOG &&
                         event->session_log->status == TENSORBOARD__SESSION_LOG__STATUS__STOP;
    if (event)
        tensorboard__event__free_unpacked(event, NULL);
    return result;
}

int crash_file_read(const char *path, struct crash_file_content *ret_content) {
    struct gd_record_reader reader;
    const uint8_t *data;
    size_t bytes;
    int result = 0, read = GD_RECORD_READ;

    *ret_content = (struct crash_file_content){0};
    FILE *stream = fopen(path, "rbe");
    if (!stream)
        return crash_fail("%s: %s", path, strerror(errno));
    gd_record_reader_init(&reader, stream);
    while (result == 0 && (read = gd_record_read(&reader, &data, &bytes)) == GD_RECORD_READ)
        result = take_event(data, bytes, ret_content);
    if (result == 0 && read != GD_RECORD_END && read != GD_RECORD_TORN)
        result = crash_fail("%s is damaged: %s", path, reader.reason);
    ret_content->ended = ret_content->ended && read == GD_RECORD_END;
    gd_record_reader_deinit(&reader);
    fclose(stream);
    return result;
}

bool crash_file_find(const char *directory, char ret_path[static CRASH_PATH_BYTES]) {
    bool found = false;
    DIR *entries = opendir(directory);
    if (!entries)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(entries));) {
        found = strncmp(entry->d_name, "events.", 7) == 0;
        if (found)
            snprintf(ret_path, CRASH_PATH_BYTES, "%.250s/%.255s", directory, entry->d_name);
    }
    closedir(entries);
    return found;
}
