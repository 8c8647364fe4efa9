// How the examples attach to gradientd, and what they say about it at the end.
#pragma once

#include <stddef.h>

#include <gradientd/client.h>

#include "arguments.h"

// Opens the run the command line asks for. NULL when it asks for none, or, after a warning, when there is no daemon:
// the client takes a NULL run everywhere, so the training is the same.
struct gradientd_run *attachment_open(const struct arguments *arguments, const struct gradientd_group *groups,
                                      size_t n_groups);

// Closes `run`, which may be NULL, and prints where its event file is and how many steps were skipped.
void attachment_close(struct gradientd_run *run);
