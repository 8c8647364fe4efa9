#include "checkup.h"

#include <stdarg.h>
#include <stdio.h>

#include "json.h"
#include "printable.h"
#include "table.h"

enum { WHAT_BYTES = 2048 };

static const char *const verdicts[] = {"ok", "warning", "problem"};
static const enum gd_style styles[] = {GD_STYLE_GOOD, GD_STYLE_WARNING, GD_STYLE_PROBLEM};

void gd_checkup_begin(struct gd_checkup *checkup) {
    if (checkup->options->json)
        fputs("{\"checks\":[", stdout);
}

void gd_checkup_end(const struct gd_checkup *checkup) {
    if (checkup->options->json)
        printf("],\"verdict\":\"%s\"}\n", verdicts[checkup->worst]);
}

static void print_json(const struct gd_checkup *checkup, const char *name, enum gd_verdict verdict, const char *what,
                       const char *advice) {
    printf("%s{\"check\":\"%s\",\"verdict\":\"%s\",\"what\":", checkup->n_checks > 1 ? "," : "", name,
           verdicts[verdict]);
    gd_json_print_text(what);
    fputs(",\"advice\":", stdout);
    if (advice)
        gd_json_print_text(advice);
    else
        fputs("null", stdout);
    putchar('}');
}

static void print_lines(const struct gd_checkup *checkup, const char *name, enum gd_verdict verdict, const char *what,
                        const char *advice) {
    printf("%s%-8s%s %-17s ", gd_style_begin(&checkup->terminal, styles[verdict]), verdicts[verdict],
           gd_style_end(&checkup->terminal, styles[verdict]), name);
    gd_printable_write(stdout, what);
    putchar('\n');
    if (advice) {
        printf("%27s-> ", "");
        gd_printable_write(stdout, advice);
        putchar('\n');
    }
}

void gd_checkup_add(struct gd_checkup *checkup, const char *name, enum gd_verdict verdict, const char *advice,
                    const char *format, ...) {
    char what[WHAT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);

    checkup->n_checks++;
    checkup->worst = verdict > checkup->worst ? verdict : checkup->worst;
    if (checkup->options->json)
        print_json(checkup, name, verdict, what, advice);
    else
        print_lines(checkup, name, verdict, what, advice);
}
