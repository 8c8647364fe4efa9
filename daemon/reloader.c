#include "reloader.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "reload.h"
#include "systemd.h"

enum { US_PER_SECOND = 1000000, NS_PER_US = 1000 };

static void say_error(void *context, const char *path, unsigned line, const char *text) {
    (void)context;
    if (line > 0)
        gd_log(GD_LOG_ERROR, "%s:%u: %s", path, line, text);
    else
        gd_log(GD_LOG_ERROR, "%s: %s", path, text);
}

static void read_config(void *argument) {
    struct gd_reloader *reloader = argument;
    reloader->result = gd_config_read(&reloader->config, reloader->options->command_line, &reloader->report);
    uv_async_send(&reloader->done);
}

static void tell_begin(void) {
    char lines[64];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(lines, sizeof(lines), "RELOADING=1\nMONOTONIC_USEC=%lld",
             (long long)now.tv_sec * US_PER_SECOND + now.tv_nsec / NS_PER_US);
    gd_systemd_notify(lines);
}

static void begin(struct gd_reloader *reloader) {
    reloader->report = (struct gd_config_report){.say = say_error};
    int result = uv_thread_create(&reloader->thread, read_config, reloader);
    if (result == 0) {
        reloader->phase = GD_RELOADER_READING;
        return;
    }
    reloader->phase = GD_RELOADER_IDLE;
    gd_log(GD_LOG_ERROR, "the configuration cannot be read again: %s", strerror(-result));
    gd_systemd_notify("READY=1");
}

// Said at the more talkative of the two levels.
static void take(struct gd_reloader *reloader) {
    char text[GD_RELOAD_TEXT_BYTES];
    enum gd_log_level before = reloader->options->log_level;
    gd_reload_apply(reloader->options, &reloader->config.options, text);
    enum gd_log_level after = reloader->options->log_level;
    gd_log_set_level(after > before ? after : before);
    gd_log(GD_LOG_INFO, "configuration read again: %s", text);
    gd_log_set_level(after);
    reloader->apply(reloader->context);
}

static void on_done(uv_async_t *async) {
    struct gd_reloader *reloader = async->data;
    uv_thread_join(&reloader->thread);
    bool again = reloader->phase == GD_RELOADER_READING_AGAIN;
    reloader->phase = GD_RELOADER_IDLE;
    if (again)
        ; // only what is read from now on is sure to be what the last SIGHUP meant
    else if (reloader->result == 0)
        take(reloader);
    else if (reloader->result == -EBADMSG)
        gd_log(GD_LOG_ERROR, "configuration not taken, the one before stays: %u %s", reloader->report.n_errors,
               reloader->report.n_errors == 1 ? "error" : "errors");
    else
        gd_log(GD_LOG_ERROR, "configuration not taken, the one before stays: %s", strerror(-reloader->result));
    gd_config_deinit(&reloader->config);
    if (again)
        begin(reloader);
    else
        gd_systemd_notify("READY=1");
}

static void on_signal(uv_signal_t *signal, int number) {
    struct gd_reloader *reloader = signal->data;
    (void)number;
    if (reloader->phase != GD_RELOADER_IDLE) {
        reloader->phase = GD_RELOADER_READING_AGAIN;
        return;
    }
    tell_begin();
    begin(reloader);
}

void gd_reloader_init(struct gd_reloader *reloader, uv_loop_t *loop, struct gd_server_options *options,
                      void (*apply)(void *context), void *context) {
    *reloader = (struct gd_reloader){.options = options, .apply = apply, .context = context};
    uv_async_init(loop, &reloader->done, on_done);
    reloader->done.data = reloader;
    uv_signal_init(loop, &reloader->signal);
    reloader->signal.data = reloader;
    if (options->command_line)
        uv_signal_start(&reloader->signal, on_signal, SIGHUP);
}

void gd_reloader_close(struct gd_reloader *reloader) {
    uv_close((uv_handle_t *)&reloader->signal, NULL);
    uv_close((uv_handle_t *)&reloader->done, NULL);
}

bool gd_reloader_is_hanging(const struct gd_reloader *reloader) {
    return reloader->phase != GD_RELOADER_IDLE;
}
