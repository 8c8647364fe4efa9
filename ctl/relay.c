#include "relay.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    // A daemon answers the end of a connection at once, unless it has hung, or is so far behind that it reads no more.
    END_TIMEOUT_MS = 10000,
};

struct gd_relay *gd_relay_new_consume(int trainer, int daemon, struct gd_recorder *recorder, struct gd_arena *arena) {
    struct gd_relay *relay = calloc(1, sizeof(*relay));
    if (!relay) {
        close(trainer);
        close(daemon);
        return NULL;
    }
    *relay = (struct gd_relay){.recorder = recorder, .arena = arena, .trainer = trainer, .daemon = daemon, .pidfd = -1};
    if (gd_flow_init(&relay->up, trainer, daemon, &gd_relay_up_handlers, relay) < 0 ||
        gd_flow_init(&relay->down, daemon, trainer, &gd_relay_down_handlers, relay) < 0) {
        gd_relay_free(relay);
        return NULL;
    }
    return relay;
}

// What a socket is read and written by; -1 where it waits for neither, as poll() would tell of its end for ever.
static struct pollfd poll_of(int fd, bool reads, bool writes) {
    short events = (short)((reads ? POLLIN : 0) | (writes ? POLLOUT : 0));
    return (struct pollfd){.fd = events ? fd : -1, .events = events};
}

void gd_relay_poll(const struct gd_relay *relay, struct pollfd ret_polls[GD_RELAY_POLLS]) {
    const struct gd_flow *up = &relay->up, *down = &relay->down;
    ret_polls[0] = poll_of(relay->trainer, gd_flow_wants_read(up), gd_flow_wants_write(down));
    ret_polls[1] = poll_of(relay->daemon, gd_flow_wants_read(down), gd_flow_wants_write(up));
    ret_polls[2] = poll_of(relay->pidfd, up->state == GD_FLOW_OPEN, false);
}

// The trainer is gone and all it said has gone on: the daemon hears the end. It answers with its own, or with an Error
// first.
static void end_trainer(struct gd_relay *relay) {
    if (relay->trainer_done || relay->up.state != GD_FLOW_ENDED || relay->up.ready > 0 || relay->up.broken)
        return;
    relay->trainer_done = true;
    relay->done_ms = relay->now_ms;
    shutdown(relay->daemon, SHUT_WR);
}

bool gd_relay_advance(struct gd_relay *relay, const struct pollfd polls[GD_RELAY_POLLS], uint64_t now_ms) {
    struct gd_flow *up = &relay->up, *down = &relay->down;
    relay->now_ms = now_ms;
    if (polls[1].revents & ~POLLOUT && gd_flow_wants_read(down))
        gd_flow_read(down);
    gd_flow_write(down);
    if (polls[2].revents)
        gd_flow_drain(up);
    if (polls[0].revents & ~POLLOUT && gd_flow_wants_read(up))
        gd_flow_read(up);
    gd_flow_write(up);
    end_trainer(relay);
    if (down->state == GD_FLOW_ENDED && down->ready == 0)
        return false;
    return !relay->trainer_done || now_ms < relay->done_ms + END_TIMEOUT_MS;
}

bool gd_relay_lost_daemon(const struct gd_relay *relay) {
    return !relay->trainer_done && !relay->refused;
}

void gd_relay_interrupt(struct gd_relay *relay) {
    if (relay->recording && !relay->recording->ended)
        gd_run_recording_fail(relay->recording, "interrupted before the run's end");
}

// How the run ended for the daemon, where it has.
static void end_recording(struct gd_relay *relay) {
    struct gd_run_recording *recording = relay->recording;
    bool closes = recording->close_sequence > 0;
    if (relay->spoilt && !relay->refused)
        gd_run_recording_fail(recording, "a message is not what this version knows; what follows it is not recorded");
    if (relay->refused)
        gd_run_recording_end(recording, GD_RECORDED_REFUSED, relay->error);
    else if (closes && (relay->trainer_done || relay->released_sequence >= recording->close_sequence))
        gd_run_recording_end(recording, GD_RECORDED_CLOSED, NULL);
    else if (relay->trainer_done)
        gd_run_recording_end(recording, GD_RECORDED_TRAINER_GONE, NULL);
    else if (!recording->memory.base) // what came inline is gone with the daemon
        gd_run_recording_end(recording, GD_RECORDED_LEFT, NULL);
}

void gd_relay_free(struct gd_relay *relay) {
    if (relay->recording)
        end_recording(relay);
    gd_flow_deinit(&relay->up);
    gd_flow_deinit(&relay->down);
    gd_opening_deinit(&relay->opening);
    gd_memory_view_deinit(&relay->memory);
    free(relay->submission);
    free(relay->message);
    free(relay->payload);
    close(relay->trainer);
    close(relay->daemon);
    if (relay->pidfd >= 0)
        close(relay->pidfd);
    free(relay);
}
