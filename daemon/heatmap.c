#include "heatmap.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "png_image.h"

enum {
    SIZE_MAX_ROWS = 64,

    // colours: the values -1, -0.99, ..., 1, then
    LEVELS = 201,
    BACKGROUND = LEVELS,
    INK,
    NO_VALUE,
    COLOURS,

    // pixels; a glyph is 3 x 5 dots of DOT pixels, and as much free to its right as a dot
    DOT = 2,
    GLYPH_COLUMNS = 3,
    GLYPH_ROWS = 5,
    GLYPH_WIDTH = (GLYPH_COLUMNS + 1) * DOT,
    GLYPH_HEIGHT = GLYPH_ROWS * DOT,
    LEFT = 2 * GLYPH_WIDTH + 6, // two digits beside the rows
    TOP = GLYPH_HEIGHT + 6,
    BAR_GAP = 16,
    BAR_WIDTH = 14,
    RIGHT = BAR_GAP + BAR_WIDTH + 4 + 2 * GLYPH_WIDTH + 4,
    BOTTOM = 8,

    LABELS_MAX = 2 * SIZE_MAX_ROWS + 3,
    LABEL_BYTES = 12,
};

struct label {
    uint32_t x, y; // of its upper left corner
    char text[LABEL_BYTES];
};

struct gd_heatmap {
    uint32_t size, cell;
    uint32_t n_labels;
    struct label labels[LABELS_MAX];
    struct gd_png_colour palette[COLOURS];
    uint8_t levels[SIZE_MAX_ROWS * SIZE_MAX_ROWS]; // the matrix under way, in colours
    size_t png_bytes;
    uint8_t png[];
};

// Large enough to be told apart, the whole at most some 350 pixels wide.
static uint32_t cell_of(uint32_t size) {
    return size <= 8 ? 24 : size <= 16 ? 16 : 8;
}

static uint32_t width_of(uint32_t size) {
    return LEFT + size * cell_of(size) + RIGHT;
}

static uint32_t height_of(uint32_t size) {
    return TOP + size * cell_of(size) + BOTTOM;
}

static_assert(LEFT + SIZE_MAX_ROWS * 8 + RIGHT <= GD_PNG_WIDTH_MAX, "the widest image");

size_t gd_heatmap_png_bytes(uint32_t size) {
    return gd_png_bytes(width_of(size), height_of(size), COLOURS);
}

uint64_t gd_heatmap_bytes(uint32_t size) {
    return sizeof(struct gd_heatmap) + gd_heatmap_png_bytes(size);
}

static uint8_t blend(int from, int to, int part, int whole) {
    return (uint8_t)((from * (whole - part) + to * part + whole / 2) / whole);
}

// Straight lines between colours of about the same lightness at the same distance from 0.
static void fill_palette(struct gd_png_colour *palette) {
    static const struct gd_png_colour stops[] = {
        {127, 59, 8}, {230, 145, 56}, {247, 247, 247}, {103, 169, 207}, {5, 48, 97}, // -1, -0.5, 0, 0.5, 1
    };
    enum { PART = (LEVELS - 1) / 4 };
    for (int i = 0; i < LEVELS; i++) {
        int stop = i < LEVELS - 1 ? i / PART : 3;
        const struct gd_png_colour *from = &stops[stop], *to = from + 1;
        int part = i - stop * PART;
        palette[i] =
            (struct gd_png_colour){blend(from->red, to->red, part, PART), blend(from->green, to->green, part, PART),
                                   blend(from->blue, to->blue, part, PART)};
    }
    palette[BACKGROUND] = (struct gd_png_colour){255, 255, 255};
    palette[INK] = (struct gd_png_colour){0, 0, 0};
    palette[NO_VALUE] = (struct gd_png_colour){150, 150, 150};
}

static uint32_t text_width(const char *text) {
    return (uint32_t)strlen(text) * GLYPH_WIDTH - DOT;
}

static void add_label(struct gd_heatmap *heatmap, uint32_t x, uint32_t y, const char *text) {
    struct label *label = &heatmap->labels[heatmap->n_labels++];
    label->x = x;
    label->y = y;
    snprintf(label->text, sizeof(label->text), "%s", text);
}

// Beside the rows and above the columns, as many as there is room for.
static void add_labels(struct gd_heatmap *heatmap) {
    uint32_t cell = heatmap->cell, plot = heatmap->size * cell;
    uint32_t spacing = cell > 2 * GLYPH_WIDTH ? 1 : cell == 2 * GLYPH_WIDTH ? 2 : 4;
    for (uint32_t i = 0; i < heatmap->size; i += spacing) {
        char text[LABEL_BYTES];
        snprintf(text, sizeof(text), "%u", i);
        uint32_t middle = i * cell + cell / 2;
        add_label(heatmap, LEFT + middle - text_width(text) / 2, TOP - GLYPH_HEIGHT - 3, text);
        add_label(heatmap, LEFT - 3 - text_width(text), TOP + middle - GLYPH_HEIGHT / 2, text);
    }
    uint32_t beside_bar = LEFT + plot + BAR_GAP + BAR_WIDTH + 4;
    add_label(heatmap, beside_bar + GLYPH_WIDTH, TOP, "1");
    add_label(heatmap, beside_bar + GLYPH_WIDTH, TOP + plot / 2 - GLYPH_HEIGHT / 2, "0");
    add_label(heatmap, beside_bar, TOP + plot - GLYPH_HEIGHT, "-1");
}

int gd_heatmap_new(uint32_t size, struct gd_heatmap **ret_heatmap) {
    assert(size >= 2 && size <= SIZE_MAX_ROWS);
    struct gd_heatmap *heatmap = calloc(1, gd_heatmap_bytes(size));
    if (!heatmap)
        return -ENOMEM;
    heatmap->size = size;
    heatmap->cell = cell_of(size);
    heatmap->png_bytes = gd_heatmap_png_bytes(size);
    fill_palette(heatmap->palette);
    add_labels(heatmap);
    *ret_heatmap = heatmap;
    return 0;
}

void gd_heatmap_free(struct gd_heatmap *heatmap) {
    free(heatmap);
}

// Row `row` of a glyph, a bit per column, the left one highest.
static uint32_t glyph_bits(char glyph, uint32_t row) {
    static const uint8_t digits[10][GLYPH_ROWS] = {
        {7, 5, 5, 5, 7}, {2, 6, 2, 2, 7}, {7, 1, 7, 4, 7}, {7, 1, 7, 1, 7}, {5, 5, 7, 1, 1},
        {7, 4, 7, 1, 7}, {7, 4, 7, 5, 7}, {7, 1, 1, 1, 1}, {7, 5, 7, 5, 7}, {7, 5, 7, 1, 7},
    };
    static const uint8_t minus[GLYPH_ROWS] = {0, 0, 7, 0, 0};
    return glyph >= '0' && glyph <= '9' ? digits[glyph - '0'][row] : minus[row];
}

static void draw_label(const struct label *label, uint32_t y, uint8_t *pixels) {
    if (y < label->y || y >= label->y + GLYPH_HEIGHT)
        return;
    uint8_t *at = pixels + label->x;
    for (const char *glyph = label->text; *glyph; glyph++) {
        uint32_t bits = glyph_bits(*glyph, (y - label->y) / DOT);
        for (uint32_t column = 0; column <= GLYPH_COLUMNS; column++, at += DOT)
            if (bits & 1u << (GLYPH_COLUMNS - 1) >> column)
                memset(at, INK, DOT);
    }
}

static void draw_row(const void *context, uint32_t y, uint8_t *pixels) {
    const struct gd_heatmap *heatmap = context;
    uint32_t plot = heatmap->size * heatmap->cell;

    memset(pixels, BACKGROUND, width_of(heatmap->size));
    if (y >= TOP && y < TOP + plot) {
        const uint8_t *levels = heatmap->levels + (size_t)((y - TOP) / heatmap->cell) * heatmap->size;
        for (uint32_t i = 0; i < heatmap->size; i++)
            memset(pixels + LEFT + i * heatmap->cell, levels[i], heatmap->cell);
        uint32_t level = (LEVELS - 1) * (plot - 1 - (y - TOP)) / (plot - 1);
        memset(pixels + LEFT + plot + BAR_GAP, (int)level, BAR_WIDTH);
    }
    for (uint32_t i = 0; i < heatmap->n_labels; i++)
        draw_label(&heatmap->labels[i], y, pixels);
}

static uint8_t level_of(double value) {
    if (isnan(value))
        return NO_VALUE;
    double clamped = value < -1.0 ? -1.0 : value > 1.0 ? 1.0 : value;
    return (uint8_t)(0.5 * (LEVELS - 1) * (clamped + 1.0) + 0.5);
}

bool gd_heatmap_draw(struct gd_heatmap *heatmap, const double *values, struct gd_heatmap_png *ret_png) {
    for (size_t i = 0; i < (size_t)heatmap->size * heatmap->size; i++)
        heatmap->levels[i] = level_of(values[i]);
    const struct gd_png_image image = {
        .width = width_of(heatmap->size),
        .height = height_of(heatmap->size),
        .palette = heatmap->palette,
        .n_colours = COLOURS,
        .draw_row = draw_row,
        .context = heatmap,
    };
    if (!gd_png_write(&image, heatmap->png, heatmap->png_bytes))
        return false;
    *ret_png = (struct gd_heatmap_png){image.width, image.height, heatmap->png, heatmap->png_bytes};
    return true;
}
