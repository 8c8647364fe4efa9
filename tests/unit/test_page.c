// The page that says how to read a run, whatever the run shows.
#include <criterion/criterion.h>
#include <string.h>

#include "page.h"
#include "shown.h"
#include "tags.h"

static char text[GD_PAGE_BYTES_MAX + 1];

static const char *page_of(uint32_t shown) {
    size_t bytes = gd_page_write(shown, text);
    cr_assert_leq(bytes, GD_PAGE_BYTES_MAX);
    cr_assert_eq(gd_page_write(shown, NULL), bytes);
    text[bytes] = '\0';
    cr_assert_eq(strlen(text), bytes);
    return text;
}

Test(page, every_page_is_markdown_of_under_9_KiB) {
    for (uint32_t shown = 0; shown <= GD_SHOWN_ALL; shown++) {
        const char *page = page_of(shown);
        cr_expect_lt(strlen(page), 9216, "%x", shown);
        cr_expect_eq(strncmp(page, "# ", 2), 0, "%x", shown);
        cr_expect_eq(page[strlen(page) - 1], '\n', "%x", shown);
        for (const char *c = page; *c; c++)
            cr_assert(*c == '\n' || (*c >= ' ' && *c < 0x7f), "%x: a character that is not ASCII", shown);
        for (const char *heading = page; (heading = strstr(heading, "\n## ")); heading++)
            cr_expect_eq(heading[-1], '\n', "%x: no empty line before %.20s", shown, heading + 1);
    }
}

Test(page, it_tells_of_what_the_run_has) {
    static const struct {
        const char *says;
        uint32_t needs;
    } cases[] = {
        {"## coherence/", GD_SHOWN_ALWAYS},
        {"## adam/", GD_SHOWN_EFFECTIVE_STEP},
        {"## noise/", GD_SHOWN_ALWAYS},
        {"## alerts/", GD_SHOWN_ALWAYS},
        {"## gradient/", GD_SHOWN_ALWAYS},
        {GD_TAG_GRADIENT_HISTOGRAM, GD_SHOWN_ALWAYS},
        {GD_TAG_STEP_SIZE_HISTOGRAM, GD_SHOWN_EFFECTIVE_STEP},
        {"**`rms`**", GD_SHOWN_EFFECTIVE_STEP | GD_SHOWN_SECOND_MOMENT},
        {"## shadow_", GD_SHOWN_SHADOWS},
        {"## group_", GD_SHOWN_GROUPS},
        {"`coherence_probe/`", GD_SHOWN_PROBE},
        {"## parameters/", GD_SHOWN_PARAMETERS},
        {"## function/", GD_SHOWN_OUTPUTS},
        {"## curvature/", GD_SHOWN_PROBE | GD_SHOWN_PARAMETERS},
    };
    for (uint32_t shown = 0; shown <= GD_SHOWN_ALL; shown++) {
        const char *page = page_of(shown);
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
            cr_expect_eq(strstr(page, cases[i].says) != NULL, (shown & cases[i].needs) == cases[i].needs, "%s of %x",
                         cases[i].says, shown);
    }
}

// With an effective step of the run's own, or without.
Test(page, shadows_are_told_of_in_one_way) {
    for (uint32_t shown = 0; shown <= GD_SHOWN_ALL; shown++) {
        const char *told = strstr(page_of(shown), "## shadow_");
        cr_expect(!told || !strstr(told + 1, "## shadow_"), "%x", shown);
    }
}

Test(page, without_an_effective_step_no_adam_chart_is_spoken_of) {
    for (uint32_t shown = 0; shown <= GD_SHOWN_ALL; shown++)
        if (!(shown & GD_SHOWN_EFFECTIVE_STEP))
            cr_expect_null(strstr(page_of(shown), "adam/"), "%x", shown);
}
