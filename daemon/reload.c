#include "reload.h"

#include <stdio.h>
#include <string.h>

// Appends a key to a list; returns how long it is then.
static size_t append(char *text, size_t used, const char *before, const char *key) {
    int bytes = snprintf(text + used, GD_RELOAD_TEXT_BYTES - used, "%s%s", before, key);
    return used + (size_t)bytes;
}

void gd_reload_apply(struct gd_server_options *options, const struct gd_server_options *fresh,
                     char ret_text[static GD_RELOAD_TEXT_BYTES]) {
    size_t used = 0;
    const char *before = "changed: ";
    for (enum gd_setting_id id = 0; id < GD_SETTINGS; id++) {
        if (!gd_settings[id].live || gd_setting_is_same(id, options, fresh))
            continue;
        gd_setting_copy(id, options, fresh);
        used = append(ret_text, used, before, gd_settings[id].key);
        before = ", ";
    }
    if (used == 0)
        used = append(ret_text, 0, "nothing changed", "");
    before = "; needs a restart: ";
    for (enum gd_setting_id id = 0; id < GD_SETTINGS; id++) {
        if (gd_settings[id].live || gd_setting_is_same(id, options, fresh))
            continue;
        used = append(ret_text, used, before, gd_settings[id].key);
        before = ", ";
    }
}
