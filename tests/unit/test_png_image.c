#include "png_image.h"

#include <criterion/criterion.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

static const struct gd_png_colour palette[] = {{0, 0, 0}, {255, 0, 0}, {0, 255, 0}, {1, 2, 3}};

static void draw_row(const void *context, uint32_t y, uint8_t *pixels) {
    uint32_t width = *(const uint32_t *)context;
    for (uint32_t x = 0; x < width; x++)
        pixels[x] = (uint8_t)((x * 3 + y) % 4);
}

static struct gd_png_image image_of(const uint32_t *width, uint32_t height) {
    return (struct gd_png_image){*width, height, palette, 4, draw_row, width};
}

// Whatever its size: rows and stored blocks (of 65,535 bytes) end where they like.
Test(png_image, libpng_reads_what_was_written) {
    static const uint32_t sizes[][2] = {{1, 1},     {1, 3000},  {1024, 1},  {255, 256},
                                        {256, 255}, {1023, 64}, {1024, 64}, {1024, 400}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint32_t width = sizes[i][0], height = sizes[i][1];
        struct gd_png_image drawn = image_of(&width, height);
        size_t bytes = gd_png_bytes(width, height, 4);
        uint8_t *file = malloc(bytes); // of its size, where a sanitizer sees a byte too many
        cr_assert(gd_png_write(&drawn, file, bytes), "%u x %u", width, height);

        png_image read = {.version = PNG_IMAGE_VERSION};
        cr_assert(png_image_begin_read_from_memory(&read, file, bytes), "%s", read.message);
        cr_assert(read.width == width && read.height == height && read.colormap_entries == 4);
        read.format = PNG_FORMAT_RGB;
        uint8_t *pixels = malloc(PNG_IMAGE_SIZE(read));
        cr_assert(png_image_finish_read(&read, NULL, pixels, 0, NULL), "%s", read.message);
        cr_assert_eq(read.warning_or_error, 0, "%s", read.message);
        for (uint32_t y = 0; y < height; y++)
            for (uint32_t x = 0; x < width; x++)
                cr_assert_eq(memcmp(pixels + 3 * ((size_t)y * width + x), &palette[(x * 3 + y) % 4], 3), 0,
                             "%u x %u: pixel %u, %u", width, height, x, y);
        free(pixels);
        free(file);
    }
}

Test(png_image, a_buffer_that_is_too_small_is_refused) {
    uint32_t width = 20;
    struct gd_png_image image = image_of(&width, 10);
    size_t bytes = gd_png_bytes(width, 10, 4);
    for (size_t less = 1; less <= bytes; less += 7) {
        uint8_t *file = malloc(bytes - less + 1);
        cr_expect_not(gd_png_write(&image, file, bytes - less), "%zu bytes less", less);
        free(file);
    }
}

Test(png_image, what_libpng_refuses_is_refused) {
    uint32_t width = 0;
    struct gd_png_image image = image_of(&width, 10);
    uint8_t file[1024];
    cr_expect_not(gd_png_write(&image, file, sizeof(file)));
}
