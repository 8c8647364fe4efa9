// A table of texts with a line of titles, as wide as its texts, or as a terminal has columns.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "terminal.h"

enum { GD_TABLE_COLUMNS_MAX = 16 };

struct gd_column {
    const char *title;
    bool right;   // aligned: numbers
    size_t least; // columns of the terminal it can be cut down to; 0: never
};

enum gd_style {
    GD_STYLE_PLAIN,
    GD_STYLE_TITLE,
    GD_STYLE_GOOD,
    GD_STYLE_WARNING,
    GD_STYLE_PROBLEM,
};

struct gd_table {
    const struct gd_column *columns; // borrowed
    size_t n_columns;
    FILE *cells; // each cell's text is written here, then gd_table_end_cell() called
    char *text;
    size_t text_bytes;
    size_t n_cells;
};

// Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_table_init(struct gd_table *table, const struct gd_column *columns,
                                                      size_t n_columns);

void gd_table_deinit(struct gd_table *table);

// The cell's text is written: printable, without the end of a line.
void gd_table_end_cell(struct gd_table *table, enum gd_style style);

// Prints the titles and the first rows, `rows_max` of them at most; each row has its cells. Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_table_print(struct gd_table *table, FILE *out,
                                                       const struct gd_terminal *terminal, size_t rows_max);

// What begins and ends a style; "" without colours.
const char *gd_style_begin(const struct gd_terminal *terminal, enum gd_style style);
const char *gd_style_end(const struct gd_terminal *terminal, enum gd_style style);
