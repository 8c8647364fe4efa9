// Writes the seed corpora of the fuzz targets from valid messages and records. Usage: make_corpus DIRECTORY
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "bytes.h"
#include "event.h"
#include "frame.h"
#include "gradientd.pb-c.h"
#include "gradientd/protocol.h"
#include "open_runs.h"
#include "recording_seeds.h"

enum { SEED_BYTES_MAX = 8192 };

static const char *root;

static void write_seed(const char *target, const char *name, const uint8_t *data, size_t bytes) {
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", root, target);
    mkdir(path, 0777);
    snprintf(path, sizeof(path), "%s/%s/%s", root, target, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(EXIT_FAILURE);
    }
    close(fd);
}

// One message as a seed of both targets that take messages: as a frame, and in fuzz_decode.c's form.
static void write_packed(const char *name, const uint8_t *message, size_t message_bytes, const uint8_t *payload,
                         size_t payload_bytes) {
    uint8_t seed[SEED_BYTES_MAX];
    uint8_t *end = seed + GRADIENTD_FRAME_HEADER_BYTES + message_bytes;

    gd_frame_write_header(seed, (uint32_t)message_bytes, (uint32_t)payload_bytes);
    memcpy(seed + GRADIENTD_FRAME_HEADER_BYTES, message, message_bytes);
    if (payload_bytes > 0)
        memcpy(end, payload, payload_bytes);
    size_t frame_bytes = GRADIENTD_FRAME_HEADER_BYTES + message_bytes + payload_bytes;
    write_seed("frame", name, seed, frame_bytes);

    uint8_t *decode = seed + GRADIENTD_FRAME_HEADER_BYTES - 2;
    decode[0] = (uint8_t)message_bytes;
    decode[1] = (uint8_t)(message_bytes >> 8);
    write_seed("decode", name, decode, 2 + message_bytes + payload_bytes);
}

static void write_message(const char *name, const Gradientd__ClientMessage *message, const uint8_t *payload,
                          size_t payload_bytes) {
    uint8_t packed[SEED_BYTES_MAX / 2];
    size_t message_bytes = gradientd__client_message__pack(message, packed);
    write_packed(name, packed, message_bytes, payload, payload_bytes);
}

static void write_hello(void) {
    char client[] = "make_corpus 1";
    Gradientd__Hello hello = GRADIENTD__HELLO__INIT;
    hello.protocol_version = GRADIENTD_PROTOCOL_VERSION;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;
    write_message("hello", &message, NULL, 0);
    hello.client = client;
    write_message("hello_named", &message, NULL, 0);
}

// What a run that begins in mid-training hands over, by its slot and inline.
static void write_start_vectors(void) {
    static const uint8_t elements_inline[] = {0, 0, 0x80, 0x3f, 0, 0, 0xc0, 0x7f}; // 1 and NaN
    for (int kind = 0; kind < 4; kind++) {
        char name[32];
        Gradientd__StreamElements elements = GRADIENTD__STREAM_ELEMENTS__INIT;
        Gradientd__StartVector body = GRADIENTD__START_VECTOR__INIT;
        Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;

        elements.kind = kind % 2 == 0 ? GRADIENTD__STREAM_KIND__START_SECOND_MOMENT
                                      : GRADIENTD__STREAM_KIND__START_SECOND_MOMENT_MAX;
        elements.has_slot = kind < 2;
        elements.has_inline_bytes = kind >= 2;
        elements.inline_bytes = sizeof(elements_inline);
        elements.has_deflated = elements.deflated = kind == 3;
        body.sequence = (uint64_t)kind + 1;
        body.elements = &elements;
        body.optimizer_step = UINT64_C(1) << (16 * kind);
        message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_START_VECTOR;
        message.start_vector = &body;
        snprintf(name, sizeof(name), "start_vector%d", kind);
        write_message(name, &message, elements_inline, kind < 2 ? 0 : sizeof(elements_inline));
    }
}

static void write_open_runs(void) {
    for (int number = OPEN_RUNS_FIRST; number <= OPEN_RUNS_LAST; number++) {
        struct open_run_message written;
        char name[32];
        open_runs_write(number, &written);
        snprintf(name, sizeof(name), "open_run%d", number);
        write_packed(name, written.message, written.message_bytes, written.table, written.table_bytes);
    }
}

static void write_attachments(void) {
    for (int declared = 0; declared < 4; declared++) {
        char name[32];
        Gradientd__Attach body = GRADIENTD__ATTACH__INIT;
        Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
        body.has_memory = body.memory = declared > 0;
        body.has_event_file = body.event_file = declared > 1;
        body.has_pidfd = body.pidfd = declared > 2;
        message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_ATTACH;
        message.attach = &body;
        snprintf(name, sizeof(name), "attach%d", declared);
        write_message(name, &message, NULL, 0);
    }
}

static void write_snapshots(void) {
    uint8_t present[2] = {0xa5, 1};
    char tags[2][16] = {"train/loss", "\xe2\x88\x87"};
    Gradientd__Scalar scalars[2] = {GRADIENTD__SCALAR__INIT, GRADIENTD__SCALAR__INIT};
    Gradientd__Scalar *scalar_pointers[] = {&scalars[0], &scalars[1]};
    for (int i = 0; i < 2; i++) {
        scalars[i].tag = tags[i];
        scalars[i].value = (float)i;
    }
    for (int kind = 0; kind < 8; kind++) {
        char name[32];
        Gradientd__StreamElements elements = GRADIENTD__STREAM_ELEMENTS__INIT;
        Gradientd__StreamElements *streams[] = {&elements};
        Gradientd__ParameterGroupStep rates = GRADIENTD__PARAMETER_GROUP_STEP__INIT;
        Gradientd__ParameterGroupStep *rate_pointers[] = {&rates, &rates};
        Gradientd__SquaredNorm norm = GRADIENTD__SQUARED_NORM__INIT, *norms[] = {&norm, &norm};
        double group_norms[2] = {1.0, 1e30};
        Gradientd__Snapshot body = GRADIENTD__SNAPSHOT__INIT;
        Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;

        elements.kind = GRADIENTD__STREAM_KIND__GRADIENT;
        elements.has_slot = true;
        elements.slot = (uint32_t)kind;
        rates.learning_rate = 1e-3;
        rates.has_beta2 = rates.has_eps = kind & 1;
        rates.beta2 = 0.9;
        body.sequence = (uint64_t)kind + 1;
        body.step = 1 << kind;
        body.wall_time = 1.7e9 + kind;
        body.n_streams = 1;
        body.streams = streams;
        body.n_parameter_groups = 2;
        body.parameter_groups = rate_pointers;
        body.has_optimizer_step = kind & 2;
        body.optimizer_step = (uint64_t)kind;
        body.has_applied = kind & 4;
        body.has_groups_present = kind & 1;
        body.groups_present = (ProtobufCBinaryData){sizeof(present), present};
        body.n_scalars = (size_t)kind % 3;
        body.scalars = scalar_pointers;
        body.has_skipped = kind & 4;
        body.skipped = 1000;
        body.has_batch_size = body.has_clip_factor = kind & 2;
        body.batch_size = 64.0;
        body.clip_factor = 0.5;
        norm.batch_size = 8.0;
        norm.value = 2.5;
        norm.n_per_group = kind & 4 ? 2 : 0;
        norm.per_group = group_norms;
        body.n_squared_norms = kind & 2;
        body.squared_norms = norms;
        message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SNAPSHOT;
        message.snapshot = &body;
        snprintf(name, sizeof(name), "snapshot%d", kind);
        write_message(name, &message, NULL, 0);
    }
}

static void write_endings(void) {
    char tag[] = "validation/loss";
    Gradientd__Scalar scalar = GRADIENTD__SCALAR__INIT;
    Gradientd__Scalar *scalars[] = {&scalar, &scalar, &scalar};
    Gradientd__Scalars values = GRADIENTD__SCALARS__INIT;
    Gradientd__CloseRun close_run = GRADIENTD__CLOSE_RUN__INIT;
    Gradientd__StatusRequest request = GRADIENTD__STATUS_REQUEST__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;

    scalar.tag = tag;
    values.sequence = 1;
    values.step = 7;
    values.wall_time = 1.7e9;
    values.scalars = scalars;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS;
    message.scalars = &values;
    write_message("scalars0", &message, NULL, 0);
    values.n_scalars = 3;
    write_message("scalars3", &message, NULL, 0);

    close_run.sequence = 300;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_CLOSE_RUN;
    message.close_run = &close_run;
    close_run.outcome = GRADIENTD__OUTCOME__SUCCESS;
    write_message("close_success", &message, NULL, 0);
    close_run.outcome = GRADIENTD__OUTCOME__FAILURE;
    write_message("close_failure", &message, NULL, 0);

    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_STATUS_REQUEST;
    message.status_request = &request;
    write_message("status_request", &message, NULL, 0);
    request.has_runs_after = request.has_alerts_after = true;
    request.runs_after = 300;
    request.alerts_after = UINT64_MAX;
    write_message("status_request_after", &message, NULL, 0);
}

// Elements of growing length in fuzz_payload.c's form: raw, and deflated by every level.
static void write_payloads(void) {
    for (int level = 0; level <= 9; level++) {
        uint8_t elements[400], seed[SEED_BYTES_MAX];
        size_t bytes = 4 * (1 + 11 * (size_t)level), deflated_bytes = sizeof(seed) - 4;
        char name[32];
        for (size_t i = 0; i < bytes; i++)
            elements[i] = (uint8_t)(i % 4 < 2 ? 0 : i * i * i);

        seed[0] = 0;
        seed[1] = (uint8_t)(1 + 5 * level);
        seed[2] = (uint8_t)bytes;
        seed[3] = (uint8_t)(bytes >> 8);
        memcpy(seed + 4, elements, bytes);
        snprintf(name, sizeof(name), "raw%d", level);
        write_seed("payload", name, seed, 4 + bytes);

        seed[0] = 1;
        if (compress2(seed + 4, &deflated_bytes, elements, bytes, level) != Z_OK)
            exit(EXIT_FAILURE);
        snprintf(name, sizeof(name), "level%d", level);
        write_seed("payload", name, seed, 4 + deflated_bytes);
        snprintf(name, sizeof(name), "torn%d", level);
        write_seed("payload", name, seed, 4 + deflated_bytes - 1 - (size_t)level);
        seed[2] = (uint8_t)(bytes - 1);
        snprintf(name, sizeof(name), "long%d", level);
        write_seed("payload", name, seed, 4 + deflated_bytes);
    }
}

// Event files of growing length, whole and torn, each with right checksums and with the wish for them.
static void write_records(void) {
    for (int n_scalars = 0; n_scalars < 8; n_scalars++) {
        uint8_t seed[SEED_BYTES_MAX] = {(uint8_t)(n_scalars & 1)};
        struct gd_record_buffer buffer = {.data = seed + 1, .capacity = sizeof(seed) - 1};
        struct gd_scalar scalars[8];
        char name[32];

        gd_event_append_start(&buffer, 1.7e9, n_scalars);
        for (int i = 0; i < n_scalars; i++)
            scalars[i] = gd_scalar_of("train/loss", (float)i, i % 3 == 0 ? "the loss" : i % 3 == 1 ? "" : NULL);
        gd_event_append_scalars(&buffer, 1.7e9, 1, scalars, (size_t)n_scalars);
        snprintf(name, sizeof(name), "open%d", n_scalars);
        write_seed("record", name, seed, 1 + buffer.used);
        gd_event_append_stop(&buffer, 1.7e9, 1);
        snprintf(name, sizeof(name), "whole%d", n_scalars);
        write_seed("record", name, seed, 1 + buffer.used);
        snprintf(name, sizeof(name), "torn%d", n_scalars);
        write_seed("record", name, seed, 1 + buffer.used - 3 * (size_t)(n_scalars + 1));
    }
    static const uint8_t empty_record[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0x29, 0x03, 0x98, 0x07, 0xd8, 0xea, 0x82, 0xa2};
    write_seed("record", "empty_record", empty_record, sizeof(empty_record));
}

// Shadow rules ahead of the start vectors that are still to come: a trainer could end the daemon with it.
static void write_shadow_ahead(void) {
    enum { OPEN_RUN = 8, NEW = 1, ADAM = 3, SHADOWS = 9 };
    static const uint8_t regions[] = {ADAM, SHADOWS};
    static const uint8_t submissions[] = {3, 0, 5, 3, 1, 5, 0}; // two StartVectors and a step
    const uint64_t seen[] = {1, 1, 100};                        // steps applied, the first one, the last
    uint8_t seed[SEED_BYTES_MAX] = {0x06, OPEN_RUN - OPEN_RUNS_FIRST, NEW, sizeof(regions)};
    size_t bytes = 4;
    for (size_t i = 0; i < sizeof(regions); i++) {
        seed[bytes] = regions[i];
        seed[bytes + 2] = sizeof(seen) - 1;
        memcpy(seed + bytes + 3, seen, sizeof(seen));
        bytes += 3 + sizeof(seen);
    }
    memcpy(seed + bytes, submissions, sizeof(submissions));
    write_seed("attach", "shadow_ahead", seed, bytes + sizeof(submissions));
}

// Attachments in fuzz_attach.c's form: every OpenRun with new memory and with a run's, every image, and every part of a
// run's memory changed.
static void write_attachment(const char *name, int open_run, int image, const uint8_t *patches, size_t patches_bytes) {
    static const uint8_t submissions[] = {
        3,    0,    100,                                           // StartVectors, where the run has them
        3,    1,    100,                                           // ...
        0,                                                         // the next step
        1,    0x7d, 0,        1,        5, 3, 3, 4, 2, 0xc8, 0, 3, // a Snapshot with all that it may have
        2,    5,    9,                                             // Scalars
        6,                                                         // the daemon dies, another goes on
        0x80,                                                      // a step that waits in the queue
        4,    3,    192 + 20, 192 + 10,                            // CloseRun
    };
    uint8_t seed[SEED_BYTES_MAX] = {0x06, (uint8_t)(open_run - OPEN_RUNS_FIRST), (uint8_t)image};
    memcpy(seed + 3, patches, patches_bytes);
    memcpy(seed + 3 + patches_bytes, submissions, sizeof(submissions));
    write_seed("attach", name, seed, 3 + patches_bytes + sizeof(submissions));
}

static void write_attachments_of_garbage(void) {
    enum { IMAGES = 5, RUNNING = 2, REGIONS = 17, FEW_SLOTS = 9 };
    static const uint8_t unchanged[] = {0};
    char name[32];
    for (int open_run = OPEN_RUNS_FIRST; open_run <= OPEN_RUNS_LAST; open_run++) {
        snprintf(name, sizeof(name), "new%d", open_run);
        write_attachment(name, open_run, 0, unchanged, sizeof(unchanged));
        snprintf(name, sizeof(name), "running%d", open_run);
        write_attachment(name, open_run, RUNNING, unchanged, sizeof(unchanged));
    }
    for (int image = 0; image < IMAGES; image++) {
        snprintf(name, sizeof(name), "image%d", image);
        write_attachment(name, OPEN_RUNS_FIRST + 1, image, unchanged, sizeof(unchanged));
    }
    for (int region = 0; region < REGIONS; region++) {
        const uint8_t patches[] = {2, (uint8_t)region,          0, 7, 1, 0, 0, 0, 0, 0, 0,
                                   0, (uint8_t)(region | 0x80), 1, 3, 1, 0, 0, 0};
        snprintf(name, sizeof(name), "region%d", region);
        write_attachment(name, FEW_SLOTS, RUNNING, patches, sizeof(patches));
    }
}

// Sessions in fuzz_session.c's form: whole ones of every OpenRun, and each way to leave the way.
static void write_sessions(void) {
    enum { ADVANCE, CONNECT, HELLO, OPEN_RUN, ATTACH, SNAPSHOT, INLINE, OTHER = 1 << 5, HALF = 1 << 6, HASTY = 1 << 7 };
    enum {
        CLOSE_RUN = 9,
        STATUS = 10,
        CLOSE = 14,
        REWRITE = 15,
        READ = 17,
        SEND = 18,
        OPS = 21,
        OPEN_RUNS = OPEN_RUNS_LAST - OPEN_RUNS_FIRST + 1
    };
    char name[32];
    for (uint8_t number = 0; number < OPEN_RUNS; number++) {
        uint8_t shared[] = {number & 1, CONNECT,        HELLO,           0,         OPEN_RUN, number, ATTACH, 4,
                            ADVANCE,    ADVANCE,        ADVANCE,         SNAPSHOT,  0x6d,     1,      3,      5,
                            0,          ADVANCE | HALF, ADVANCE | HASTY, CLOSE_RUN, 200,      250};
        uint8_t sent_inline[] = {number & 1, CONNECT, HELLO, 0, OPEN_RUN, number, ATTACH, 1,      ADVANCE, ADVANCE,
                                 ADVANCE,    INLINE,  0,     1, INLINE,   0x20,   0,      INLINE, 0,       5};
        uint8_t again[] = {0,       CONNECT,         HELLO,   0,       OPEN_RUN,  number,   ATTACH, 0,       ADVANCE,
                           ADVANCE, ADVANCE | HASTY, CONNECT, HELLO,   0,         OPEN_RUN, number, REWRITE, 9,
                           1,       ATTACH,          0,       ADVANCE, CLOSE_RUN, 0,        0};
        snprintf(name, sizeof(name), "shared%d", number);
        write_seed("session", name, shared, sizeof(shared));
        snprintf(name, sizeof(name), "inline%d", number);
        write_seed("session", name, sent_inline, sizeof(sent_inline));
        snprintf(name, sizeof(name), "again%d", number);
        write_seed("session", name, again, sizeof(again));
    }
    for (uint8_t op = 0; op < OPS; op++) { // with another client beside, in the middle of a run
        uint8_t seed[] = {
            0, ADVANCE, ADVANCE, ADVANCE,         ADVANCE,         ADVANCE,         ADVANCE | HASTY, op,     1,
            2, 3,       4,       ADVANCE | OTHER, ADVANCE | OTHER, ADVANCE | OTHER, ADVANCE | OTHER, ADVANCE};
        snprintf(name, sizeof(name), "op%d", op);
        write_seed("session", name, seed, sizeof(seed));
    }
    for (uint8_t pooled = 0; pooled < 2; pooled++) { // another client asks about a run, and begins one then
        uint8_t seed[] = {pooled,
                          ADVANCE,
                          ADVANCE,
                          ADVANCE,
                          ADVANCE,
                          ADVANCE,
                          CONNECT | OTHER,
                          HELLO | OTHER,
                          0,
                          STATUS | OTHER,
                          READ | OTHER,
                          ADVANCE | HASTY,
                          STATUS | OTHER,
                          STATUS | OTHER | HALF,
                          SEND | OTHER,
                          READ | OTHER,
                          ADVANCE | OTHER,
                          ADVANCE | OTHER,
                          ADVANCE | OTHER,
                          CLOSE,
                          ADVANCE | OTHER};
        snprintf(name, sizeof(name), "status%d", pooled);
        write_seed("session", name, seed, sizeof(seed));
    }
}

// Recordings of every OpenRun, with their elements in slots and inline, and one that is compressed.
static void write_recordings(void) {
    enum { WITH_SIDES = 10 };
    char name[32];
    uint8_t seed[4 * SEED_BYTES_MAX], compressed[4 * SEED_BYTES_MAX];
    for (int number = OPEN_RUNS_FIRST; number <= OPEN_RUNS_LAST; number++) {
        for (int is_inline = 0; is_inline < 2; is_inline++) {
            if (number == WITH_SIDES && is_inline)
                continue; // which a daemon refuses
            size_t bytes = recording_seed_write(number, is_inline, seed, sizeof(seed));
            snprintf(name, sizeof(name), "%s%d", is_inline ? "inline" : "slots", number);
            write_seed("recording", name, seed, bytes);
        }
    }
    size_t bytes = recording_seed_write(OPEN_RUNS_FIRST, false, seed, sizeof(seed));
    z_stream gzip = {.next_in = seed + 1, .avail_in = (uInt)bytes - 1, .next_out = compressed + 1};
    gzip.avail_out = sizeof(compressed) - 1;
    compressed[0] = 0;
    if (deflateInit2(&gzip, 1, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) != Z_OK ||
        deflate(&gzip, Z_FINISH) != Z_STREAM_END)
        exit(EXIT_FAILURE);
    write_seed("recording", "compressed", compressed, 1 + gzip.total_out);
    write_seed("recording", "torn", compressed, gzip.total_out - 20);
    deflateEnd(&gzip);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: make_corpus DIRECTORY\n");
        return EXIT_FAILURE;
    }
    root = argv[1];
    mkdir(root, 0777);
    write_hello();
    write_open_runs();
    write_attachments();
    write_snapshots();
    write_start_vectors();
    write_endings();
    write_payloads();
    write_records();
    write_attachments_of_garbage();
    write_shadow_ahead();
    write_sessions();
    write_recordings();
    return EXIT_SUCCESS;
}
