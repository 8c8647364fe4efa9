// gradientctl: looks at what gradientd has written.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "record.h"
#include "tensorboard.pb-c.h"

enum {
    EXIT_DAMAGE = 1, // the file is damaged, or could not be read or printed
    EXIT_USAGE = 2,

    // What unpacking one event may allocate: protobuf-c takes up to 60 times a hostile message's own bytes.
    EVENT_MEMORY_BYTES_MAX = 256 << 20,
};

// One command of the tool. `run` gets the arguments after the command's name and returns the exit status.
struct command {
    const char *name;
    const char *arguments;
    const char *summary;
    int (*run)(const struct command *command, int n_arguments, char **arguments);
};

static int usage_error(const struct command *command, const char *problem, const char *what) {
    fprintf(stderr, "gradientctl %s: %s%s\nusage: gradientctl %s %s\n", command->name, problem, what, command->name,
            command->arguments);
    return EXIT_USAGE;
}

// A field of a CSV line (RFC 4180): quoted when it holds what would break the line up.
static void print_csv_text(const char *text) {
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, stdout);
        return;
    }
    putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"')
            putchar('"');
        putchar(*text);
    }
    putchar('"');
}

static void print_scalars(const Tensorboard__Event *event) {
    if (event->what_case != TENSORBOARD__EVENT__WHAT_SUMMARY)
        return;
    for (size_t i = 0; i < event->summary->n_value; i++) {
        const Tensorboard__Summary__Value *value = event->summary->value[i];
        if (value->value_case != TENSORBOARD__SUMMARY__VALUE__VALUE_SIMPLE_VALUE)
            continue;
        printf("%.6f,%" PRId64 ",", event->wall_time, event->step);
        print_csv_text(value->tag ? value->tag : "");
        printf(",%.9g\n", (double)value->simple_value);
    }
}

// Prints the scalars of one record; -EBADMSG when it holds no event, -ENOMEM when it unpacks to more than
// EVENT_MEMORY_BYTES_MAX.
static int print_record(struct gd_arena *arena, const uint8_t *data, size_t bytes) {
    gd_arena_reset(arena);
    const Tensorboard__Event *event = tensorboard__event__unpack(&arena->allocator, bytes, data);
    if (!event)
        return arena->exhausted ? -ENOMEM : -EBADMSG;
    print_scalars(event);
    return 0;
}

// Says how the reading of `path` ended, after the values that could be read; returns the exit status.
static int report_end(const char *path, const struct gd_record_reader *reader, int result) {
    switch (result) {
    case GD_RECORD_END:
        return EXIT_SUCCESS;
    case GD_RECORD_TORN:
        fprintf(stderr, "gradientctl: %s: note: the record at offset %" PRIu64 " is not complete (yet)\n", path,
                reader->offset);
        return EXIT_SUCCESS;
    case GD_RECORD_DAMAGED:
        fprintf(stderr, "gradientctl: %s: damaged at offset %" PRIu64 ": %s\n", path, reader->bad_offset,
                reader->reason);
        return EXIT_DAMAGE;
    case -EBADMSG:
        fprintf(stderr, "gradientctl: %s: damaged: the record that ends at offset %" PRIu64 " holds no event\n", path,
                reader->offset);
        return EXIT_DAMAGE;
    default:
        fprintf(stderr, "gradientctl: %s: cannot be read at offset %" PRIu64 ": %s\n", path, reader->offset,
                strerror(-result));
        return EXIT_DAMAGE;
    }
}

// Prints what can be read and returns how the reading ended: a gd_record_result or a negative errno.
static int print_records(struct gd_record_reader *reader) {
    struct gd_arena arena;
    int result = gd_arena_init(&arena, EVENT_MEMORY_BYTES_MAX);
    if (result < 0)
        return result;

    puts("wall_time,step,tag,value");
    do {
        const uint8_t *data;
        size_t bytes;
        result = gd_record_read(reader, &data, &bytes);
        if (result == GD_RECORD_READ)
            result = print_record(&arena, data, bytes);
    } while (result == GD_RECORD_READ);
    gd_arena_deinit(&arena);
    return result;
}

static int dump_stream(const char *path, FILE *stream) {
    struct gd_record_reader reader;
    gd_record_reader_init(&reader, stream);
    int result = print_records(&reader);

    // The values come first, also where both streams are one terminal or log.
    int status = EXIT_SUCCESS;
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "gradientctl: cannot write: %s\n", strerror(errno));
        status = EXIT_DAMAGE;
    }
    int end_status = report_end(path, &reader, result);
    gd_record_reader_deinit(&reader);
    return status != EXIT_SUCCESS ? status : end_status;
}

static int dump(const struct command *command, int n_arguments, char **arguments) {
    if (n_arguments != 1)
        return usage_error(command, "exactly one FILE is needed", "");
    if (arguments[0][0] == '-')
        return usage_error(command, "unknown option ", arguments[0]);

    FILE *stream = fopen(arguments[0], "rbe");
    if (!stream) {
        fprintf(stderr, "gradientctl: %s: %s\n", arguments[0], strerror(errno));
        return EXIT_DAMAGE;
    }
    int status = dump_stream(arguments[0], stream);
    fclose(stream);
    return status;
}

static const struct command commands[] = {
    {"dump", "FILE", "print every scalar of an event file as CSV: wall_time,step,tag,value", dump},
};

enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void print_help(FILE *stream) {
    fputs("usage: gradientctl COMMAND [ARGUMENT...]\n\ncommands:\n", stream);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(stream, "  %s %s\n      %s\n", commands[i].name, commands[i].arguments, commands[i].summary);
    fputs("\nexit status: 0 done, 1 the file is damaged or cannot be read, 2 wrong usage\n", stream);
}

static const struct command *command_find(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || (argc > 2 && strcmp(argv[2], "--help") == 0)) {
        print_help(stdout);
        return EXIT_SUCCESS;
    }

    const struct command *command = command_find(argv[1]);
    if (!command) {
        fprintf(stderr, "gradientctl: unknown command %s (see gradientctl --help)\n", argv[1]);
        return EXIT_USAGE;
    }
    return command->run(command, argc - 2, argv + 2);
}
