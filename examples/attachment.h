// How the examples attach to gradientd, and what they say about it at the end.
#pragma once

#include <stddef.h>

#include <gradientd/client.h>

#include "arguments.h"

// What the command line does not say about a run. Zero-initialise; what is 0 or NULL takes the default named here.
struct attachment {
    const struct gradientd_group *groups;
    size_t n_groups;
    const struct optimizer_settings *settings;                            // NULL: those of the optimiser's kind
    const char *run_suffix;                                               // of the run's name; NULL: none
    struct gradientd_stream_options probe_gradients, parameters, outputs; // as gradientd_options has them
    uint64_t output_examples, outputs_per_example;
    const struct gradientd_hparam *hparams; // beside those of the command line; NULL: none
    size_t n_hparams;                       // at most ATTACHMENT_HPARAMS_MAX
    bool labels_from_model;
};

enum { ATTACHMENT_HPARAMS_MAX = 8 };

// Opens the run the command line asks for. NULL when it asks for none, or, after a warning, when there is no daemon:
// the client takes a NULL run everywhere, so the training is the same.
struct gradientd_run *attachment_open(const struct arguments *arguments, const struct attachment *attachment);

// Closes `run`, which may be NULL, and prints where its event file is and how many steps were skipped.
void attachment_close(struct gradientd_run *run);
