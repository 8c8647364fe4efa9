// What a rule's onset or clearing is called and said, in the run, the log and the Alert. Pure.
#pragma once

#include <stddef.h>

#include "diagnostics/alerts.h"
#include "event_tensor.h"
#include "message.h"

enum { GD_ALERT_TEXT_BYTES = 1280 }; // with its terminating 0; of a name of 255 bytes 769 at most, as markdown

// As in `alerts/<rule>`; static.
const char *gd_alert_rule_name(enum gd_alert_rule rule);
struct gd_tensor_tag gd_alert_tag(enum gd_alert_rule rule);

// One sentence of markdown. Returns its bytes.
size_t gd_alert_format(enum gd_alert_rule rule, const struct gd_alert *alert, const struct gd_open_run *open_run,
                       char ret_text[static GD_ALERT_TEXT_BYTES]);

// At least what the records of all rules take in a step.
size_t gd_alert_records_max(void);
