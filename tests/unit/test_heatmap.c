#include "heatmap.h"

#include <criterion/criterion.h>
#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"

static struct gd_heatmap *heatmap;
static struct gd_heatmap_png png;
static uint8_t *pixels; // RGB, as libpng reads them

static void draw(uint32_t size, const double *values) {
    cr_assert_eq(gd_heatmap_new(size, &heatmap), 0);
    cr_assert(gd_heatmap_draw(heatmap, values, &png));
    cr_assert_eq(png.bytes, gd_heatmap_png_bytes(size));
    png_image image = {.version = PNG_IMAGE_VERSION};
    cr_assert(png_image_begin_read_from_memory(&image, png.data, png.bytes), "%s", image.message);
    cr_assert_eq(image.warning_or_error, 0, "%s", image.message);
    cr_assert(image.width == png.width && image.height == png.height);
    image.format = PNG_FORMAT_RGB;
    pixels = malloc(PNG_IMAGE_SIZE(image));
    cr_assert(png_image_finish_read(&image, NULL, pixels, 0, NULL), "%s", image.message);
    cr_assert_eq(image.warning_or_error, 0, "%s", image.message);
}

static void forget(void) {
    gd_heatmap_free(heatmap);
    free(pixels);
}

static const uint8_t *pixel(uint32_t x, uint32_t y) {
    return pixels + 3 * ((size_t)y * png.width + x);
}

static bool is_colour(const uint8_t *at, int red, int green, int blue) {
    return at[0] == red && at[1] == green && at[2] == blue;
}

enum { LEFT = 22, TOP = 16 }; // of the matrix

static const uint8_t *cell(uint32_t row, uint32_t column, uint32_t pixels_each) {
    return pixel(LEFT + column * pixels_each + pixels_each / 2, TOP + row * pixels_each + pixels_each / 2);
}

Test(heatmap, each_value_has_its_colour) {
    const double values[] = {1.0, -1.0, 0.0, 0.5, -0.5, (double)NAN, 7.0, -7.0, 1e-9};
    draw(3, values);
    cr_expect(is_colour(cell(0, 0, 24), 5, 48, 97), "1");
    cr_expect(is_colour(cell(0, 1, 24), 127, 59, 8), "-1");
    cr_expect(is_colour(cell(0, 2, 24), 247, 247, 247), "0");
    cr_expect(is_colour(cell(1, 0, 24), 103, 169, 207), "0.5");
    cr_expect(is_colour(cell(1, 1, 24), 230, 145, 56), "-0.5");
    cr_expect(is_colour(cell(1, 2, 24), 150, 150, 150), "no value");
    cr_expect(is_colour(cell(2, 0, 24), 5, 48, 97), "beyond 1");
    cr_expect(is_colour(cell(2, 1, 24), 127, 59, 8), "beyond -1");
    cr_expect(is_colour(cell(2, 2, 24), 247, 247, 247), "about 0");
    forget();
}

Test(heatmap, a_cell_is_a_square_and_no_more) {
    double values[36] = {0};
    values[2 * 6 + 4] = 1.0;
    draw(6, values);
    uint32_t dark = 0;
    for (uint32_t y = 0; y < 6 * 24; y++)
        for (uint32_t x = 0; x < 6 * 24; x++) {
            bool inside = y / 24 == 2 && x / 24 == 4;
            const uint8_t *at = pixel(LEFT + x, TOP + y);
            cr_expect(inside ? is_colour(at, 5, 48, 97) : is_colour(at, 247, 247, 247), "pixel %u, %u", x, y);
            dark += inside;
        }
    cr_expect_eq(dark, 24 * 24);
    forget();
}

// From blue above to orange below, through all levels.
Test(heatmap, the_bar_shows_the_scale) {
    double values[36] = {0};
    draw(6, values);
    uint32_t x = LEFT + 6 * 24 + 16 + 7;
    cr_expect(is_colour(pixel(x, TOP), 5, 48, 97));
    cr_expect(is_colour(pixel(x, TOP + 6 * 24 - 1), 127, 59, 8));
    cr_expect(is_colour(pixel(x, TOP - 1), 255, 255, 255) && is_colour(pixel(x, TOP + 6 * 24), 255, 255, 255));
    int middle = pixel(x, TOP + 6 * 12)[0];
    cr_expect(middle >= 240, "%d", middle);
    forget();
}

static uint32_t count_ink(uint32_t left, uint32_t top, uint32_t width, uint32_t height) {
    uint32_t n = 0;
    for (uint32_t y = top; y < top + height; y++)
        for (uint32_t x = left; x < left + width; x++)
            n += is_colour(pixel(x, y), 0, 0, 0);
    return n;
}

Test(heatmap, rows_columns_and_the_bar_are_labelled) {
    double values[36] = {0};
    draw(6, values);
    uint32_t beside_bar = LEFT + 6 * 24 + 16 + 14 + 4;
    static const uint32_t dots[6] = {12, 8, 11, 11, 9, 11}; // of 0 to 5, as the font has them, of 2 x 2 pixels
    for (uint32_t i = 0; i < 6; i++) {
        cr_expect_eq(count_ink(LEFT + i * 24, 0, 24, TOP), 4 * dots[i], "column %u", i);
        cr_expect_eq(count_ink(0, TOP + i * 24, LEFT, 24), 4 * dots[i], "row %u", i);
    }
    cr_expect_eq(count_ink(beside_bar, TOP, 16, 24), 4 * 8, "1");
    cr_expect_eq(count_ink(beside_bar, TOP + 60, 16, 24), 4 * 12, "0");
    cr_expect_eq(count_ink(beside_bar, TOP + 6 * 24 - 10, 16, 10), 4 * (3 + 8), "-1");
    cr_expect_eq(count_ink(LEFT, TOP, 6 * 24, 6 * 24), 0, "none in the matrix");
    forget();
}

// Labels lie inside, and the file is one that libpng reads without a warning.
Test(heatmap, every_size_is_a_whole_file) {
    static double values[64 * 64];
    for (size_t i = 0; i < 64 * 64; i++)
        values[i] = (double)(i % 201) / 100.0 - 1.0;
    for (uint32_t size = 2; size <= 64; size++) {
        draw(size, values);
        uint32_t each = size <= 8 ? 24 : size <= 16 ? 16 : 8;
        cr_expect(png.width > size * each && png.width < 1024 && png.height > size * each, "size %u", size);
        for (uint32_t y = 0; y < png.height; y++)
            cr_expect(is_colour(pixel(png.width - 1, y), 255, 255, 255), "size %u", size);
        forget();
    }
}

// What another libpng, zlib or machine must write, too.
Test(heatmap, the_bytes_are_fixed) {
    double values[33 * 33];
    for (size_t i = 0; i < 33 * 33; i++)
        values[i] = (double)(i % 101) / 50.0 - 1.0;
    draw(6, values);
    cr_expect_eq(gd_crc32c(0, png.data, png.bytes), 0x6514ca23u, "%08x", gd_crc32c(0, png.data, png.bytes));
    forget();
    draw(33, values);
    cr_expect_eq(gd_crc32c(0, png.data, png.bytes), 0x38871035u, "%08x", gd_crc32c(0, png.data, png.bytes));
    forget();
}
