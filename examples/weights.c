#include "weights.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static void write_float(FILE *file, float weight) {
    uint32_t bits;
    memcpy(&bits, &weight, sizeof(bits));
    for (int shift = 0; shift < 32; shift += 8)
        putc((int)(bits >> shift & 0xff), file);
}

int weights_write(const char *path, const float *weights, size_t n) {
    if (!path)
        return 0;
    FILE *file = fopen(path, "wbe");
    int result = file ? 0 : -errno;
    for (size_t i = 0; file && i < n; i++)
        write_float(file, weights[i]);
    if (file && ferror(file))
        result = -EIO;
    if (file && fclose(file) != 0 && result == 0)
        result = -errno;
    if (result < 0)
        fprintf(stderr, "%s: %s\n", path, strerror(-result));
    return result;
}
