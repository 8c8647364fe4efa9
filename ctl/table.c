#include "table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "printable.h"

enum { GAP_COLUMNS = 2 };

// Ends each cell in the text.
struct cell_end {
    char zero;
    char style;
};

int gd_table_init(struct gd_table *table, const struct gd_column *columns, size_t n_columns) {
    assert(n_columns <= GD_TABLE_COLUMNS_MAX);
    *table = (struct gd_table){.columns = columns, .n_columns = n_columns};
    table->cells = open_memstream(&table->text, &table->text_bytes);
    return table->cells ? 0 : -ENOMEM;
}

void gd_table_deinit(struct gd_table *table) {
    if (table->cells)
        fclose(table->cells);
    free(table->text);
    *table = (struct gd_table){0};
}

void gd_table_end_cell(struct gd_table *table, enum gd_style style) {
    const struct cell_end end = {'\0', (char)style};
    fwrite(&end, sizeof(end), 1, table->cells);
    table->n_cells++;
}

static const char *next_cell(const char *cell) {
    return cell + strlen(cell) + sizeof(struct cell_end);
}

static enum gd_style style_of(const char *cell) {
    return (enum gd_style)cell[strlen(cell) + 1];
}

static void measure(const struct gd_table *table, size_t rows, size_t *ret_widths) {
    const char *cell = table->text;
    for (size_t column = 0; column < table->n_columns; column++)
        ret_widths[column] = strlen(table->columns[column].title);
    for (size_t i = 0; i < rows * table->n_columns; i++, cell = next_cell(cell)) {
        size_t columns = gd_printable_columns(cell), *width = &ret_widths[i % table->n_columns];
        *width = columns > *width ? columns : *width;
    }
}

// Takes from the widest of those that can be cut until the lines fit, or nothing more can be taken.
static void fit(const struct gd_table *table, size_t available, size_t *widths) {
    size_t needed = GAP_COLUMNS * (table->n_columns - 1);
    for (size_t column = 0; column < table->n_columns; column++)
        needed += widths[column];
    while (needed > available) {
        size_t widest = table->n_columns;
        for (size_t column = 0; column < table->n_columns; column++) {
            size_t least = table->columns[column].least;
            if (least > 0 && widths[column] > least && (widest == table->n_columns || widths[column] > widths[widest]))
                widest = column;
        }
        if (widest == table->n_columns)
            return;
        widths[widest]--;
        needed--;
    }
}

static void write_spaces(FILE *out, size_t n) {
    while (n-- > 0)
        putc(' ', out);
}

// A line as far as it is written.
struct line {
    FILE *out;
    size_t left; // columns of the terminal
    size_t owed; // spaces that are due before the next text: none stands at the end
};

// A number is shown whole or not at all.
static void add_text(struct line *line, const struct gd_terminal *terminal, const char *text, size_t columns,
                     bool number, enum gd_style style) {
    if (columns == 0 || line->owed >= line->left || (number && columns > line->left - line->owed)) {
        line->owed += columns;
        return;
    }
    write_spaces(line->out, line->owed);
    line->left -= line->owed;
    line->owed = 0;
    columns = columns < line->left ? columns : line->left;
    fputs(gd_style_begin(terminal, style), line->out);
    gd_printable_write_cut(line->out, text, columns);
    fputs(gd_style_end(terminal, style), line->out);
    line->left -= columns;
}

// The titles where `cell` is NULL.
static void print_row(const struct gd_table *table, FILE *out, const struct gd_terminal *terminal, const size_t *widths,
                      const char *cell) {
    struct line line = {.out = out, .left = terminal->columns};
    for (size_t column = 0; column < table->n_columns; column++) {
        const char *text = cell ? cell : table->columns[column].title;
        size_t needed = gd_printable_columns(text), shown = needed < widths[column] ? needed : widths[column];
        bool right = table->columns[column].right;
        line.owed += right ? widths[column] - shown : 0;
        add_text(&line, terminal, text, shown, right, cell ? style_of(cell) : GD_STYLE_TITLE);
        line.owed += (right ? 0 : widths[column] - shown) + GAP_COLUMNS;
        cell = cell ? next_cell(cell) : NULL;
    }
    putc('\n', out);
}

int gd_table_print(struct gd_table *table, FILE *out, const struct gd_terminal *terminal, size_t rows_max) {
    size_t widths[GD_TABLE_COLUMNS_MAX], rows = table->n_cells / table->n_columns;
    if (fflush(table->cells) != 0 || ferror(table->cells))
        return -ENOMEM;

    measure(table, rows, widths);
    fit(table, terminal->columns, widths);
    print_row(table, out, terminal, widths, NULL);
    const char *cell = table->text;
    for (size_t row = 0; row < rows && row < rows_max; row++) {
        print_row(table, out, terminal, widths, cell);
        for (size_t column = 0; column < table->n_columns; column++)
            cell = next_cell(cell);
    }
    return 0;
}

const char *gd_style_begin(const struct gd_terminal *terminal, enum gd_style style) {
    static const char *const codes[] = {
        [GD_STYLE_PLAIN] = "",           [GD_STYLE_TITLE] = "\033[1m",    [GD_STYLE_GOOD] = "\033[32m",
        [GD_STYLE_WARNING] = "\033[33m", [GD_STYLE_PROBLEM] = "\033[31m",
    };
    return terminal->colours ? codes[style] : "";
}

const char *gd_style_end(const struct gd_terminal *terminal, enum gd_style style) {
    return terminal->colours && style != GD_STYLE_PLAIN ? "\033[m" : "";
}
