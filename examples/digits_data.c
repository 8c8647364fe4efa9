#include "digits_data.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "random.h"

enum {
    LINE_BYTES = 512, // 64 pixels of two digits and a comma, with room to spare
    PIXEL_MAX = 16,
};

// The split is the same for every seed, so that runs are tested with the same images.
static const uint64_t split_seed = 1797;

// One number of a line and the character that must follow it; moves *cursor behind both. Returns -1 when it is not
// there.
static int digits_take_number(char **cursor, long max, char follower) {
    char *end = NULL;
    long number = strtol(*cursor, &end, 10);
    if (end == *cursor || number < 0 || number > max || *end != follower)
        return -1;
    *cursor = end + 1;
    return (int)number;
}

static int digits_parse_line(char *line, float pixels[DIGITS_PIXELS], uint8_t *ret_label) {
    char *cursor = line;
    for (size_t i = 0; i < DIGITS_PIXELS; i++) {
        int pixel = digits_take_number(&cursor, PIXEL_MAX, ',');
        if (pixel < 0)
            return -EINVAL;
        pixels[i] = (float)pixel / (float)PIXEL_MAX;
    }

    int label = digits_take_number(&cursor, 9, '\n');
    if (label < 0)
        return -EINVAL;
    *ret_label = (uint8_t)label;
    return 0;
}

static void digits_shuffle(struct digits_data *data, const struct digits_data *in_file_order) {
    struct random_source source;
    size_t order[DIGITS_COUNT];

    for (size_t i = 0; i < DIGITS_COUNT; i++)
        order[i] = i;
    random_init(&source, split_seed);
    random_shuffle(&source, order, DIGITS_COUNT);

    for (size_t i = 0; i < DIGITS_COUNT; i++) {
        memcpy(data->pixels[i], in_file_order->pixels[order[i]], sizeof(data->pixels[i]));
        data->labels[i] = in_file_order->labels[order[i]];
    }
}

int digits_data_read(struct digits_data *data, const char *path) {
    gzFile file = gzopen(path, "rb");
    if (!file) {
        int code = errno ? errno : ENOMEM;
        fprintf(stderr, "%s: %s\n", path, strerror(code));
        return -code;
    }

    int result = 0;
    struct digits_data *in_file_order = calloc(1, sizeof(*in_file_order));
    if (!in_file_order) {
        result = -ENOMEM;
        fprintf(stderr, "%s: out of memory\n", path);
        goto finish;
    }

    char line[LINE_BYTES];
    for (size_t i = 0; i < DIGITS_COUNT; i++) {
        if (!gzgets(file, line, sizeof(line)) ||
            digits_parse_line(line, in_file_order->pixels[i], &in_file_order->labels[i]) < 0) {
            fprintf(stderr, "%s: line %zu: wanted 64 pixels of 0 to 16 and a digit\n", path, i + 1);
            result = -EINVAL;
            goto finish;
        }
    }
    digits_shuffle(data, in_file_order);

finish:
    free(in_file_order);
    gzclose(file);
    return result;
}
