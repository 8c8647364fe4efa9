// Text from the wire, from a file or from the environment on its way to a terminal.
#pragma once

#include <stddef.h>
#include <stdio.h>

// Writes a 0-terminated text so that no byte of it acts on a terminal: control characters, what is no valid UTF-8 and
// characters that turn the direction of writing are spelled \xNN and \uNNNN.
void gd_printable_write(FILE *out, const char *text);

// The code point that valid UTF-8 begins with, where that turns the direction of writing; 0: it does not.
unsigned gd_printable_direction(const char *text, size_t bytes);

// How many columns of a terminal a text that was written so takes, a character one column.
size_t gd_printable_columns(const char *text);

// Writes the part of such a text that fits `columns` columns, with "..." for the rest where there is more and room.
void gd_printable_write_cut(FILE *out, const char *text, size_t columns);
