// PNG files of images with a palette. Pure but for the libpng below: no allocation, no I/O.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GD_PNG_WIDTH_MAX = 1024, // pixels
    GD_PNG_COLOURS_MAX = 256,
};

struct gd_png_colour {
    uint8_t red, green, blue;
};

struct gd_png_image {
    uint32_t width, height; // at least 1; width at most GD_PNG_WIDTH_MAX
    const struct gd_png_colour *palette;
    uint32_t n_colours; // 1 to GD_PNG_COLOURS_MAX
    // Fills in row y's `width` pixels, each the index of a colour.
    void (*draw_row)(const void *context, uint32_t y, uint8_t *pixels);
    const void *context;
};

// Exactly what the file takes.
size_t gd_png_bytes(uint32_t width, uint32_t height, uint32_t n_colours);

// Writes the file into `buffer`. Returns false where that has not gd_png_bytes() bytes, or libpng refuses.
bool gd_png_write(const struct gd_png_image *image, uint8_t *buffer, size_t capacity);
