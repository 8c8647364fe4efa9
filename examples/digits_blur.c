#include "digits_blur.h"

enum { SIDE = 8, BLOCK = 4 };

static float block_mean(const float image[DIGITS_PIXELS], size_t top, size_t left) {
    float sum = 0.0f;
    for (size_t y = top; y < top + BLOCK; y++)
        for (size_t x = left; x < left + BLOCK; x++)
            sum += image[y * SIDE + x];
    return sum / (float)(BLOCK * BLOCK);
}

void digits_blur(struct digits_data *blurred, const struct digits_data *data) {
    *blurred = *data;
    for (size_t image = 0; image < DIGITS_TRAIN; image++)
        for (size_t pixel = 0; pixel < DIGITS_PIXELS; pixel++) {
            size_t y = pixel / SIDE, x = pixel % SIDE;
            blurred->pixels[image][pixel] = block_mean(data->pixels[image], y - y % BLOCK, x - x % BLOCK);
        }
}
