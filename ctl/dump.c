// gradientctl dump: the values of an event file.
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "arena.h"
#include "command.h"
#include "json.h"
#include "record.h"
#include "tag_table.h"
#include "tensorboard.pb-c.h"

enum {
    // Enough for each value to be read back as the same float or double.
    FLOAT_DIGITS = 9,
    DOUBLE_DIGITS = 17,

    // Of Summary.Value: what older writers use, and tensorboard.proto has not.
    IMAGE_FIELD = 4,
    HISTOGRAM_FIELD = 5,
    AUDIO_FIELD = 6,
};

struct dump {
    bool json;
    struct gd_tag_table tags; // which plugin shows a tag: only its first value says it
};

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

static void print_csv(const Tensorboard__Event *event, const Tensorboard__Summary__Value *value) {
    if (value->value_case != TENSORBOARD__SUMMARY__VALUE__VALUE_SIMPLE_VALUE)
        return;
    printf("%.6f,%" PRId64 ",", event->wall_time, event->step);
    print_csv_text(value->tag ? value->tag : "");
    printf(",%.9g\n", (double)value->simple_value);
}

// By the names of the plugins that show the like.
static const char *kind_of_content(const Tensorboard__Summary__Value *value) {
    if (value->value_case == TENSORBOARD__SUMMARY__VALUE__VALUE_TENSOR)
        return "tensor";
    for (size_t i = 0; i < value->base.n_unknown_fields; i++) {
        switch (value->base.unknown_fields[i].tag) {
        case IMAGE_FIELD:
            return "images";
        case HISTOGRAM_FIELD:
            return "histograms";
        case AUDIO_FIELD:
            return "audio";
        default:
            break;
        }
    }
    return "unknown";
}

static const char *plugin_of(const Tensorboard__Summary__Value *value) {
    const Tensorboard__SummaryMetadata__PluginData *plugin = value->metadata ? value->metadata->plugin_data : NULL;
    return plugin && plugin->plugin_name ? plugin->plugin_name : "";
}

// Tags that the table has no room for are known by what each value says.
static const char *kind_of(struct dump *dump, const Tensorboard__Summary__Value *value) {
    const char *plugin = plugin_of(value);
    struct gd_known_tag *tag;
    if (gd_tag_table_use(&dump->tags, value->tag ? value->tag : "", &tag) == 0) {
        if (tag->plugin[0] == '\0' && strlen(plugin) < sizeof(tag->plugin))
            strcpy(tag->plugin, plugin);
        if (plugin[0] == '\0')
            plugin = tag->plugin;
    }
    return plugin[0] != '\0' ? plugin : kind_of_content(value);
}

static void print_json(struct dump *dump, const Tensorboard__Event *event, const Tensorboard__Summary__Value *value) {
    fputs("{\"wall_time\":", stdout);
    gd_json_print_number(event->wall_time, DOUBLE_DIGITS);
    printf(",\"step\":%" PRId64 ",\"tag\":", event->step);
    gd_json_print_text(value->tag ? value->tag : "");
    if (value->value_case == TENSORBOARD__SUMMARY__VALUE__VALUE_SIMPLE_VALUE) {
        fputs(",\"value\":", stdout);
        gd_json_print_number((double)value->simple_value, FLOAT_DIGITS);
    } else {
        fputs(",\"kind\":", stdout);
        gd_json_print_text(kind_of(dump, value));
    }
    puts("}");
}

// Prints the values of one record; -EBADMSG when it holds no event, -ENOMEM when it unpacks to more than
// GD_EVENT_MEMORY_BYTES_MAX.
static int print_record(struct dump *dump, struct gd_arena *arena, const uint8_t *data, size_t bytes) {
    gd_arena_reset(arena);
    const Tensorboard__Event *event = tensorboard__event__unpack(&arena->allocator, bytes, data);
    if (!event)
        return arena->exhausted ? -ENOMEM : -EBADMSG;
    if (event->what_case != TENSORBOARD__EVENT__WHAT_SUMMARY)
        return 0;
    for (size_t i = 0; i < event->summary->n_value; i++) {
        if (dump->json)
            print_json(dump, event, event->summary->value[i]);
        else
            print_csv(event, event->summary->value[i]);
    }
    return 0;
}

// Says how the reading of `path` ended, after the values that could be read; returns the exit status.
static int report_end(const char *path, const struct gd_record_reader *reader, int result) {
    switch (result) {
    case GD_RECORD_END:
        return GD_EXIT_DONE;
    case GD_RECORD_TORN:
        fprintf(stderr, "gradientctl: %s: note: the record at offset %" PRIu64 " is not complete (yet)\n", path,
                reader->offset);
        return GD_EXIT_DONE;
    case GD_RECORD_DAMAGED:
        fprintf(stderr, "gradientctl: %s: damaged at offset %" PRIu64 ": %s\n", path, reader->bad_offset,
                reader->reason);
        return GD_EXIT_DAMAGE;
    case -EBADMSG:
        fprintf(stderr, "gradientctl: %s: damaged: the record that ends at offset %" PRIu64 " holds no event\n", path,
                reader->offset);
        return GD_EXIT_DAMAGE;
    default:
        fprintf(stderr, "gradientctl: %s: cannot be read at offset %" PRIu64 ": %s\n", path, reader->offset,
                strerror(-result));
        return GD_EXIT_DAMAGE;
    }
}

// Prints what can be read and returns how the reading ended: a gd_record_result or a negative errno.
static int print_records(struct dump *dump, struct gd_record_reader *reader) {
    struct gd_arena arena;
    int result = gd_arena_init(&arena, GD_EVENT_MEMORY_BYTES_MAX);
    if (result < 0)
        return result;

    if (!dump->json)
        puts("wall_time,step,tag,value");
    do {
        const uint8_t *data;
        size_t bytes;
        result = gd_record_read(reader, &data, &bytes);
        if (result == GD_RECORD_READ)
            result = print_record(dump, &arena, data, bytes);
    } while (result == GD_RECORD_READ);
    gd_arena_deinit(&arena);
    return result;
}

static int dump_stream(const char *path, FILE *stream, bool json) {
    struct dump dump = {.json = json};
    struct gd_record_reader reader;
    gd_record_reader_init(&reader, stream);
    int result = print_records(&dump, &reader);

    // The values come first, also where both streams are one terminal or log.
    int status = gd_command_flush();
    int end_status = report_end(path, &reader, result);
    gd_record_reader_deinit(&reader);
    gd_tag_table_deinit(&dump.tags);
    return status != GD_EXIT_DONE ? status : end_status;
}

int gd_dump_run(const struct gd_command *command, int n_arguments, char **arguments) {
    bool json = n_arguments > 0 && strcmp(arguments[0], "--json") == 0;
    if (json) {
        n_arguments--;
        arguments++;
    }
    if (n_arguments != 1)
        return gd_command_usage_error(command, "exactly one FILE is needed", "");
    if (arguments[0][0] == '-')
        return gd_command_usage_error(command, "unknown option ", arguments[0]);

    FILE *stream = fopen(arguments[0], "rbe");
    if (!stream) {
        fprintf(stderr, "gradientctl: %s: %s\n", arguments[0], strerror(errno));
        return GD_EXIT_DAMAGE;
    }
    int status = dump_stream(arguments[0], stream, json);
    fclose(stream);
    return status;
}
