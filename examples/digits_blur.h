// Digits as a weak eye sees them.
#pragma once

#include "digits_data.h"

// Fills `blurred` with `data`, the training images blurred: each block of 4 x 4 pixels becomes its mean. The images to
// test with stay sharp.
void digits_blur(struct digits_data *blurred, const struct digits_data *data);
