// The kernels of every instruction set against the reference: to the last bit, in values and in bounds. The same calls
// can be timed. A plain program that needs nothing but the kernels, so that it can be built for another processor and
// run by an emulator.
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "outcome.h"
#include "placement.h"
#include "pools.h"
#include "sweeps.h"
#include "timing.h"

enum {
    SMALL_STRIDE = 29, // no loop's length is a multiple of it, so that it meets all of every loop
    FAILURES_SHOWN = 10,
    REPETITIONS = 31, // of a timed call, and as few as a small run has
    SMALL_REPETITIONS = 3,
};

static const char usage[] =
    "Usage: check_kernels [OPTION...]\n"
    "\n"
    "Runs every kernel this machine supports on many calls and compares sums and state with the reference's, bit by\n"
    "bit. Ends with status 0 if all are the same and nothing outside the buffers was touched.\n"
    "\n"
    "  --seed N            draw other values (1)\n"
    "  --variant NAME      check that variant alone\n"
    "  --cases small|full  small: one in 29, for emulators (full)\n"
    "  --case N            that case alone\n"
    "  --digest            print a hash of the reference's results instead, the same on every machine\n"
    "  --bench             print the time an element takes instead\n"
    "  --help              this text\n";

struct options {
    uint64_t seed;
    const char *variant; // NULL: all
    uint64_t first, stride;
    bool digest, bench;
};

struct contestant {
    const struct gd_kernels *kernels;
    uint64_t calls, failures;
};

// The reference first.
struct contest {
    const struct options *options;
    struct contestant contestants[VARIANTS_MAX];
    size_t n;
};

// ---- Options --------------------------------------------------------------------------------------------------------

static void fail_usage(const char *what, const char *value) {
    fprintf(stderr, "check_kernels: %s %s\n%s", what, value, usage);
    exit(2);
}

static uint64_t parse_number(const char *text) {
    char *end;

    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno)
        fail_usage("not a number:", text);
    return number;
}

static void use_option(int option, const char *value, struct options *options) {
    switch (option) {
    case 's':
        options->seed = parse_number(value);
        break;
    case 'v':
        options->variant = value;
        break;
    case 'n':
        if (strcmp(value, "small") != 0 && strcmp(value, "full") != 0)
            fail_usage("neither small nor full:", value);
        options->stride = *value == 's' ? SMALL_STRIDE : 1;
        break;
    case 'c':
        options->first = parse_number(value);
        options->stride = UINT64_MAX;
        break;
    case 'd':
        options->digest = true;
        break;
    case 'b':
        options->bench = true;
        break;
    case 'h':
        fputs(usage, stdout);
        exit(0);
    default:
        fputs(usage, stderr);
        exit(2);
    }
}

static struct options parse_options(int argc, char **argv) {
    static const struct option names[] = {
        {"seed", required_argument, NULL, 's'},  {"variant", required_argument, NULL, 'v'},
        {"cases", required_argument, NULL, 'n'}, {"case", required_argument, NULL, 'c'},
        {"digest", no_argument, NULL, 'd'},      {"bench", no_argument, NULL, 'b'},
        {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
    };
    struct options options = {.seed = 1, .stride = 1};
    int option;

    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1)
        use_option(option, optarg, &options);
    if (optind < argc)
        fail_usage("unknown argument:", argv[optind]);
    return options;
}

// ---- Which kernels --------------------------------------------------------------------------------------------------

static bool expect(bool holds, const char *what, const char *name) {
    if (!holds)
        fprintf(stderr, "failed: selection: %s: %s\n", what, name);
    return holds;
}

// Names find what they name, and the reference comes last and is always there.
static bool check_selection(void) {
    static const char *const unknown[] = {"", "scala", "scalar ", "SCALAR", "abacus", "avx1024"};
    const struct gd_kernels *kernels, *other, *last = NULL, *selected, untouched;
    bool good = true, supported = false, other_supported;

    for (size_t i = 0; (kernels = gd_kernels_variant(i, &supported)); i++) {
        last = kernels;
        selected = &untouched;
        int status = gd_kernels_select(kernels->name, &selected);
        good &= expect(status == (supported ? 0 : -EINVAL), "wrong status", kernels->name);
        good &= expect(selected == (supported ? kernels : &untouched), "wrong kernels", kernels->name);
        for (size_t k = 0; k < i && (other = gd_kernels_variant(k, &other_supported)); k++)
            good &= expect(other->analyse != kernels->analyse, "another's function", kernels->name);
    }
    good &= expect(last == &gd_kernels_scalar && supported, "not last and supported", "scalar");
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        selected = &untouched;
        good &= expect(gd_kernels_select(unknown[i], &selected) == -EINVAL, "found", unknown[i]);
        good &= expect(selected == &untouched, "result touched", unknown[i]);
    }
    return good;
}

static void add_contestant(struct contest *contest, const struct gd_kernels *kernels) {
    if (contest->n == VARIANTS_MAX)
        abort();
    contest->contestants[contest->n++].kernels = kernels;
}

static void choose_contestants(struct contest *contest) {
    const char *wanted = contest->options->variant;
    const struct gd_kernels *kernels;
    bool supported;

    add_contestant(contest, &gd_kernels_scalar);
    for (size_t i = 0; (kernels = gd_kernels_variant(i, &supported)); i++) {
        if (kernels == &gd_kernels_scalar || (wanted && strcmp(kernels->name, wanted) != 0))
            continue;
        if (supported)
            add_contestant(contest, kernels);
        else
            printf("skipped: %s: not supported by this machine\n", kernels->name);
    }
    if (wanted && contest->n == 1 && strcmp(wanted, gd_kernels_scalar.name) != 0)
        fail_usage("no variant that this machine supports:", wanted);
}

// ---- Checking -------------------------------------------------------------------------------------------------------

static void report_failure(const struct contest *contest, const struct contestant *contestant,
                           const struct placed_call *placed) {
    fprintf(stderr, "failed: %s, %s: ", contestant->kernels->name,
            placed->placement == AT_FRONT ? "behind a guard page" : "up to a guard page");
    kernel_call_print(placed->call, stderr);
    fprintf(stderr, "    to repeat: --seed %" PRIu64 " --case %" PRIu64 " --variant %s\n", contest->options->seed,
            placed->call->number, contestant->kernels->name);
}

static void judge(const struct contest *contest, struct contestant *contestant, const struct placed_call *placed,
                  const struct outcome *outcome, const struct outcome *expected) {
    contestant->calls++;
    if (outcome_is_good(outcome, expected, placed))
        return;
    if (contestant->failures++ >= FAILURES_SHOWN)
        return;
    report_failure(contest, contestant, placed);
    outcome_print_faults(outcome, expected, placed, stderr);
}

static void check_call(void *context, const struct kernel_call *call) {
    struct contest *contest = context;
    struct placed_call placed;
    struct outcome expected, outcome;

    for (enum placement placement = AT_FRONT; placement < PLACEMENTS; placement++) {
        place_call(call, placement, &placed);
        for (size_t i = 0; i < contest->n; i++) {
            struct contestant *contestant = &contest->contestants[i];
            outcome_of(contestant->kernels, &placed, &outcome);
            if (i == 0 && placement == AT_FRONT) {
                expected = outcome;
                outcome_keep(&expected, call->shape.elems);
            }
            judge(contest, contestant, &placed, &outcome, &expected);
        }
    }
}

static bool report(const struct contestant *contestant) {
    const char *name = contestant->kernels->name;

    if (contestant->failures > 0) {
        printf("failed: %s: %" PRIu64 " of %" PRIu64 " cases\n", name, contestant->failures, contestant->calls);
    } else if (contestant->calls == 0) {
        printf("failed: %s: no case\n", name);
    } else {
        printf("ok: %s: %" PRIu64 " cases\n", name, contestant->calls);
    }
    return contestant->failures == 0 && contestant->calls > 0;
}

static bool check(struct contest *contest, struct sweeper *sweeper) {
    bool good = check_selection();

    sweeper->visit = check_call;
    sweeper->context = contest;
    sweep_all(sweeper);
    for (size_t i = 0; i < contest->n; i++)
        good &= report(&contest->contestants[i]);
    return good;
}

// ---- What else can be asked -----------------------------------------------------------------------------------------

struct digest {
    uint64_t hash, calls;
};

static void digest_call(void *context, const struct kernel_call *call) {
    struct digest *digest = context;
    struct placed_call placed;
    struct outcome outcome;

    place_call(call, AT_FRONT, &placed);
    outcome_of(&gd_kernels_scalar, &placed, &outcome);
    digest->hash = digest->hash * UINT64_C(0x9e3779b97f4a7c15) + outcome_hash(&outcome, call->shape.elems);
    digest->calls++;
}

static void print_digest(struct sweeper *sweeper) {
    struct digest digest = {.hash = 0};

    sweeper->visit = digest_call;
    sweeper->context = &digest;
    sweep_all(sweeper);
    printf("digest: %016" PRIx64 " of %" PRIu64 " cases\n", digest.hash, digest.calls);
}

static void bench(const struct contest *contest) {
    const struct gd_kernels *kernels[VARIANTS_MAX];

    for (size_t i = 0; i < contest->n; i++)
        kernels[i] = contest->contestants[i].kernels;
    time_kernels(kernels, contest->n, contest->options->stride == 1 ? REPETITIONS : SMALL_REPETITIONS);
}

int main(int argc, char **argv) {
    struct options options = parse_options(argc, argv);
    struct contest contest = {.options = &options};
    struct sweeper sweeper = {.seed = options.seed, .first = options.first, .stride = options.stride};

    choose_contestants(&contest);
    pools_init(options.seed);
    placement_init();
    outcome_init();
    if (options.bench)
        bench(&contest);
    else if (options.digest)
        print_digest(&sweeper);
    else
        return check(&contest, &sweeper) ? 0 : 1;
    return 0;
}
