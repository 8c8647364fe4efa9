// A square matrix of values from -1 to 1 as an image: a cell each, the numbers of rows and columns, a bar for scale.
// Its colours go from orange by a near white to blue, which all kinds of colour vision tell apart.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gd_heatmap; // room for the image of a matrix of one size

// The image's file for a matrix of `size` rows, at least 2 and at most 64.
size_t gd_heatmap_png_bytes(uint32_t size);

// What a heatmap takes.
uint64_t gd_heatmap_bytes(uint32_t size);

// Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_heatmap_new(uint32_t size, struct gd_heatmap **ret_heatmap);
void gd_heatmap_free(struct gd_heatmap *heatmap);

struct gd_heatmap_png {
    uint32_t width, height;
    const uint8_t *data; // the heatmap's, until the next drawing
    size_t bytes;
};

// Draws size x size values, row by row; those beyond -1 or 1 as that, NaN as grey. Returns false where it cannot.
bool gd_heatmap_draw(struct gd_heatmap *heatmap, const double *values, struct gd_heatmap_png *ret_png);
