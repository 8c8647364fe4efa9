// What gradientctl makes of texts and numbers for people: harmless, short, in columns.
#include <criterion/criterion.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "printable.h"
#include "table.h"
#include "units.h"

// A stream into `text`, which is whole once it is closed.
struct written {
    FILE *out;
    char *text;
    size_t bytes;
};

static struct written *open_written(struct written *written) {
    written->out = open_memstream(&written->text, &written->bytes);
    cr_assert(written->out);
    return written;
}

// Closes it and compares; `what` names the case.
static void expect(struct written *written, const char *expected, const char *what) {
    cr_assert_eq(fclose(written->out), 0);
    cr_expect_str_eq(written->text, expected, "%s is %s, not %s", what, written->text, expected);
    free(written->text);
}

Test(ctl_text, spells_what_would_act_on_a_terminal) {
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"", ""},
        {"run/a", "run/a"},
        {"gr\xc3\xb6\xc3\x9f"
         "e \xf0\x9f\x98\x80 \\",
         "gr\xc3\xb6\xc3\x9f"
         "e \xf0\x9f\x98\x80 \\"},
        {"\x1b[2J", "\\x1b[2J"},
        {"a\r\n\t\x7f", "a\\x0d\\x0a\\x09\\x7f"},
        {"a\x99"
         "b",
         "a\\x99"
         "b"},
        {"\xc3\xb6\xb6\xb6", "\xc3\xb6\\xb6\\xb6"},
        {"\xc2\x9b"
         "31m",
         "\\xc2\\x9b"
         "31m"},
        {"\xe2\x80\xae"
         "evil",
         "\\u202eevil"},
        {"\xe2\x81\xa6\xe2\x80\x8f", "\\u2066\\u200f"},
        {"\xe2\x82\xac", "\xe2\x82\xac"},
        {"\xff\xfe\xe2\x82", "\\xff\\xfe\\xe2\\x82"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct written written;
        gd_printable_write(open_written(&written)->out, cases[i].text);
        expect(&written, cases[i].expected, cases[i].expected);
    }
}

Test(ctl_text, cuts_to_columns_of_whole_characters) {
    static const struct {
        const char *text;
        size_t columns;
        const char *expected;
    } cases[] = {
        {"abcdef", 6, "abcdef"},
        {"abcdef", 5, "ab..."},
        {"abcdef", 4, "a..."},
        {"abcdef", 3, "abc"},
        {"abcdef", 0, ""},
        {"\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6", 5, "\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6"},
        {"\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6", 4, "\xc3\xb6..."},
        {"", 0, ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct written written;
        gd_printable_write_cut(open_written(&written)->out, cases[i].text, cases[i].columns);
        expect(&written, cases[i].expected, cases[i].text);
    }
}

Test(ctl_text, counts) {
    static const struct {
        double count;
        const char *expected;
    } cases[] = {
        {0, "0"},
        {7, "7"},
        {0.0123, "0.0123"},
        {99.97, "100"},
        {999.4, "999"},
        {999.7, "1.00 k"},
        {1000, "1000"},
        {9999, "9999"},
        {10000, "10.0 k"},
        {1234.5, "1.23 k"},
        {999499, "999 k"},
        {999600, "1.00 M"},
        {1200000, "1.20 M"},
        {25e9, "25.0 G"},
        {1e18, "1.00 E"},
        {1e24, "1000000 E"},
        {(double)NAN, "nan"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct written written;
        gd_units_write_count(open_written(&written)->out, cases[i].count);
        expect(&written, cases[i].expected, "a count");
    }
}

Test(ctl_text, bytes) {
    static const struct {
        uint64_t bytes;
        const char *expected;
    } cases[] = {
        {0, "0 B"},
        {1023, "1023 B"},
        {1024, "1.0 KiB"},
        {1536, "1.5 KiB"},
        {1048575, "1.0 MiB"},
        {UINT64_C(1000) << 20, "1000 MiB"},
        {UINT64_C(5) << 30, "5.0 GiB"},
        {UINT64_MAX, "16.0 EiB"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct written written;
        gd_units_write_bytes(open_written(&written)->out, cases[i].bytes);
        expect(&written, cases[i].expected, "bytes");
    }
}

Test(ctl_text, durations) {
    static const struct {
        double seconds;
        const char *expected;
    } cases[] = {
        {0, "0.0 s"},         {9.94, "9.9 s"},    {59.9, "59 s"}, {61, "1 min 1 s"},       {3600, "1 h 0 min"},
        {90000.0, "1 d 1 h"}, {(double)NAN, "?"}, {-1, "?"},      {(double)INFINITY, "?"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct written written;
        gd_units_write_duration(open_written(&written)->out, cases[i].seconds);
        expect(&written, cases[i].expected, "a duration");
    }
}

Test(ctl_text, times_that_are_none) {
    static const double times[] = {-1, 1e300, (double)NAN, (double)INFINITY, 253402300800.0};
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        struct written written;
        gd_units_write_time(open_written(&written)->out, times[i]);
        expect(&written, "?", "a time");
    }
    setenv("TZ", "UTC", 1);
    struct written written;
    gd_units_write_time(open_written(&written)->out, 1795788309.9);
    expect(&written, "2026-11-27 14:05:09", "a time");
}

static const struct gd_column columns[] = {{"NAME", false, 4}, {"N", true, 0}, {"NOTE", false, 5}};

static void print_table(size_t width, bool colours, size_t rows_max, const char *expected) {
    static const char *const cells[] = {"long-name", "1", "", "b", "12345", "a note at length"};
    const struct gd_terminal terminal = {.is_terminal = true, .colours = colours, .columns = width};
    struct gd_table table;
    struct written written;
    cr_assert_eq(gd_table_init(&table, columns, 3), 0);
    for (size_t i = 0; i < 6; i++) {
        fputs(cells[i], table.cells);
        gd_table_end_cell(&table, i == 4 ? GD_STYLE_WARNING : GD_STYLE_PLAIN);
    }
    cr_assert_eq(gd_table_print(&table, open_written(&written)->out, &terminal, rows_max), 0);
    gd_table_deinit(&table);
    expect(&written, expected, "the table");
}

Test(ctl_text, tables) {
    print_table(SIZE_MAX, false, SIZE_MAX,
                "NAME           N  NOTE\n"
                "long-name      1\n"
                "b          12345  a note at length\n");
    print_table(34, false, SIZE_MAX,
                "NAME           N  NOTE\n"
                "long-name      1\n"
                "b          12345  a note at length\n");
    print_table(30, false, SIZE_MAX,
                "NAME           N  NOTE\n"
                "long-name      1\n"
                "b          12345  a note at...\n");
    print_table(20, false, SIZE_MAX,
                "NAME       N  NOTE\n"
                "lo...      1\n"
                "b      12345  a n...\n");
    print_table(8, false, SIZE_MAX, "NAME\nl...\nb\n");
    print_table(1, false, 1, "N\nl\n");
    print_table(SIZE_MAX, true, SIZE_MAX,
                "\033[1mNAME\033[m           \033[1mN\033[m  \033[1mNOTE\033[m\n"
                "long-name      1\n"
                "b          \033[33m12345\033[m  a note at length\n");
}

Test(ctl_text, tables_without_rows) {
    const struct gd_terminal terminal = {.columns = SIZE_MAX};
    struct gd_table table;
    struct written written;
    cr_assert_eq(gd_table_init(&table, columns, 3), 0);
    cr_assert_eq(gd_table_print(&table, open_written(&written)->out, &terminal, SIZE_MAX), 0);
    gd_table_deinit(&table);
    expect(&written, "NAME  N  NOTE\n", "the table");
}
