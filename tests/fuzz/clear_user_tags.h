// Empties a table of user tags, in a hundredth of the time that making another one takes: for runs by the million.
#pragma once

#include "user_tags.h"

void clear_user_tags(struct gd_user_tags *tags);
