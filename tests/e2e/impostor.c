#include "impostor.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bytes.h"
#include "gradientd.pb-c.h"
#include "gradientd/protocol.h"

enum { CONNECTIONS_MAX = 1024, KINDS_OF_GARBAGE = 4 };

static uint8_t frame[GRADIENTD_FRAME_HEADER_BYTES + GRADIENTD_MESSAGE_BYTES_MAX];

static void say(int connection, size_t bytes, int flags) {
    for (size_t at = 0; at < bytes;) {
        ssize_t sent = send(connection, frame + at, bytes - at, MSG_NOSIGNAL | flags);
        if (sent <= 0)
            return;
        at += (size_t)sent;
    }
}

static void say_garbage(int connection, unsigned number) {
    static const uint32_t message_bytes[KINDS_OF_GARBAGE] = {UINT32_MAX, 300, GRADIENTD_MESSAGE_BYTES_MAX, 0};
    uint32_t random = number;
    size_t bytes = number % KINDS_OF_GARBAGE == 2 ? 1000 : 4096; // the third kind's message never ends
    for (size_t i = 0; i < bytes; i++) {
        random = random * UINT32_C(1664525) + UINT32_C(1013904223);
        frame[i] = (uint8_t)(random >> 24);
    }
    gd_write_u32le(frame, message_bytes[number % KINDS_OF_GARBAGE]);
    gd_write_u32le(frame + 4, 0);
    say(connection, bytes, MSG_DONTWAIT);
}

// Fields that nobody knows, two bytes each: each takes an allocation or two.
static void say_bomb(int connection) {
    gd_write_u32le(frame, GRADIENTD_MESSAGE_BYTES_MAX);
    gd_write_u32le(frame + 4, 0);
    for (size_t i = 0; i < GRADIENTD_MESSAGE_BYTES_MAX; i += 2) {
        frame[GRADIENTD_FRAME_HEADER_BYTES + i] = 15 << 3; // a varint of field 15
        frame[GRADIENTD_FRAME_HEADER_BYTES + i + 1] = 1;
    }
    say(connection, sizeof(frame), 0);
}

static void say_message(int connection, const Gradientd__DaemonMessage *message) {
    size_t bytes = gradientd__daemon_message__pack(message, frame + GRADIENTD_FRAME_HEADER_BYTES);
    gd_write_u32le(frame, (uint32_t)bytes);
    gd_write_u32le(frame + 4, 0);
    say(connection, GRADIENTD_FRAME_HEADER_BYTES + bytes, 0);
}

static void say_welcome(int connection) {
    char name[] = "impostor";
    Gradientd__Welcome welcome = GRADIENTD__WELCOME__INIT;
    welcome.protocol_version = GRADIENTD_PROTOCOL_VERSION;
    welcome.layout_version = GRADIENTD_LAYOUT_VERSION;
    welcome.daemon = name;
    Gradientd__DaemonMessage message = GRADIENTD__DAEMON_MESSAGE__INIT;
    message.message_case = GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME;
    message.welcome = &welcome;
    say_message(connection, &message);
}

static void say_refusal(int connection) {
    enum { TEXT_BYTES = 600 };
    char field[] = "hello", text[TEXT_BYTES + 1] = {0};
    for (size_t i = 0; i < TEXT_BYTES; i++)
        text[i] = i % 20 == 10 ? '\n' : i % 20 == 15 ? '\033' : 'x';
    Gradientd__Error error = GRADIENTD__ERROR__INIT;
    error.code = GRADIENTD__ERROR_CODE__INVALID;
    error.field = field;
    error.text = text;
    Gradientd__DaemonMessage message = GRADIENTD__DAEMON_MESSAGE__INIT;
    message.message_case = GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR;
    message.error = &error;
    say_message(connection, &message);
}

static void yield_place(const char *path) {
    char successor[sizeof(((struct sockaddr_un *)NULL)->sun_path) + sizeof(".next")];
    snprintf(successor, sizeof(successor), "%s.next", path);
    if (rename(successor, path) < 0)
        _exit(EXIT_FAILURE);
}

static void answer(enum impostor_manner manner, const char *path, int connection, unsigned number) {
    if (manner == IMPOSTOR_GARBAGE)
        say_garbage(connection, number);
    if (manner == IMPOSTOR_BOMB)
        say_bomb(connection);
    if (manner == IMPOSTOR_WELCOMES || manner == IMPOSTOR_YIELDS)
        say_welcome(connection);
    if (manner == IMPOSTOR_REFUSES)
        say_refusal(connection);
    if (manner == IMPOSTOR_YIELDS)
        yield_place(path);
    if (manner == IMPOSTOR_CLOSES || manner == IMPOSTOR_WELCOMES || manner == IMPOSTOR_YIELDS ||
        number >= CONNECTIONS_MAX)
        close(connection);
}

static _Noreturn void serve(int listener, const char *path, enum impostor_manner manner) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (unsigned number = 0;; number++) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0)
            _exit(EXIT_FAILURE);
        answer(manner, path, connection, number);
    }
}

pid_t impostor_start(const char *path, enum impostor_manner manner) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cr_assert_lt(strlen(path), sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    unlink(path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                  listen(listener, 16) == 0,
              "%s: %s", path, strerror(errno));
    pid_t impostor = fork();
    cr_assert_geq(impostor, 0);
    if (impostor == 0)
        serve(listener, path, manner);
    close(listener);
    return impostor;
}

void impostor_stop(pid_t impostor) {
    kill(impostor, SIGKILL);
    cr_assert_eq(waitpid(impostor, NULL, 0), impostor);
}
