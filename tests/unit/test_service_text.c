// What systemctl status says of the daemon: by table.
#include "service_text.h"

#include <criterion/criterion.h>

Test(service_text, has_runs_and_steps) {
    static const struct {
        bool stopping;
        uint32_t runs;
        uint64_t steps;
        const char *expected;
    } cases[] = {
        {false, 0, 0, "Serving 0 runs, 0 steps"},
        {false, 1, 1, "Serving 1 run, 1 step"},
        {false, 2, 999, "Serving 2 runs, 999 steps"},
        {false, 2, 1000, "Serving 2 runs, 1,000 steps"},
        {false, 2, 1234, "Serving 2 runs, 1,234 steps"},
        {false, 2, 123456, "Serving 2 runs, 123,456 steps"},
        {false, 2, 1234567, "Serving 2 runs, 1,234,567 steps"},
        {true, 1, 20, "Finishing 1 run, 20 steps"},
        {true, UINT32_MAX, UINT64_MAX, "Finishing 4294967295 runs, 18,446,744,073,709,551,615 steps"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[GD_SERVICE_TEXT_BYTES];
        gd_service_format(cases[i].stopping, cases[i].runs, cases[i].steps, text);
        cr_expect_str_eq(text, cases[i].expected);
    }
}
