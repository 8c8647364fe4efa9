#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "text.h"

enum {
    KEPT = 16,
    ALERT_SHIFT = 16, // the upper half of the notices word counts alerts
};

// A ring of the last ones.
struct client_alerts {
    struct gradientd_alert kept[KEPT];
    uint32_t first, n;
};

int client_alerts_new(struct client_alerts **ret_alerts) {
    *ret_alerts = calloc(1, sizeof(**ret_alerts));
    return *ret_alerts ? 0 : -ENOMEM;
}

void client_alerts_free(struct client_alerts *alerts) {
    free(alerts);
}

// Cut to fit, in whole characters.
static void copy_text(char *to, size_t size, const char *text) {
    size_t bytes = text ? strlen(text) : 0;
    bytes = gd_text_clean_bytes(text ? text : "", bytes < size - 1 ? bytes : size - 1);
    memcpy(to, text ? text : "", bytes);
    to[bytes] = '\0';
}

void client_alerts_keep(struct client_alerts *alerts, const Gradientd__Alert *message) {
    if (alerts->n == KEPT) {
        alerts->first = (alerts->first + 1) % KEPT;
        alerts->n--;
    }
    struct gradientd_alert *alert = &alerts->kept[(alerts->first + alerts->n++) % KEPT];
    copy_text(alert->rule, sizeof(alert->rule), message->rule);
    copy_text(alert->text, sizeof(alert->text), message->text);
    copy_text(alert->group, sizeof(alert->group), message->group);
    alert->step = message->step;
    alert->onset = message->onset;
}

// Reads what has come. Of a run in shared memory the notices word tells whether anything has; an inline one has none.
static void look(struct gradientd_run *run) {
    if (run->link != CLIENT_ATTACHED)
        return;
    if (!run->in_line.elements) {
        uint16_t count = (uint16_t)(atomic_load_explicit(run->notices, memory_order_acquire) >> ALERT_SHIFT);
        if (count == run->alerts_seen)
            return;
        run->alerts_seen = count;
    }
    (void)client_listen_to_all(run); // a run that is lost by it tells its trainer itself
}

int gradientd_next_alert(struct gradientd_run *run, struct gradientd_alert *ret_alert) {
    if (!run || !*run->alive)
        return 0;
    if (!ret_alert)
        return client_fail(&run->error, EINVAL, "ret_alert is missing");
    struct client_alerts *alerts = run->alerts;
    if (alerts->n == 0)
        look(run);
    if (alerts->n == 0)
        return 0;
    *ret_alert = alerts->kept[alerts->first];
    alerts->first = (alerts->first + 1) % KEPT;
    alerts->n--;
    return 1;
}
