// The page of a run that says how to read its charts.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Of what gd_page_write() writes, whatever is shown.
enum { GD_PAGE_BYTES_MAX = 8191 };

// Writes markdown, without a 0 at its end, for a run that shows `shown` (enum gd_shown). Returns its bytes; `ret_text`
// may be NULL. Pure.
size_t gd_page_write(uint32_t shown, char *ret_text);
