#include "tag_bytes.h"

#include <string.h>

// Wire types of protobuf.
enum wire {
    WIRE_VARINT = 0,
    WIRE_8_BYTES = 1,
    WIRE_LENGTH = 2, // a length and so many bytes
    WIRE_4_BYTES = 5,
};

enum { VARINT_BYTES_MAX = 10 };

// Where a tag stands in an Event: the field numbers of summary, value and tag.
static const uint64_t path_to_tag[] = {5, 1, 1};
enum { PATH_FIELDS = sizeof(path_to_tag) / sizeof(path_to_tag[0]) };

struct bytes {
    const uint8_t *data;
    size_t left;
};

static bool take_varint(struct bytes *bytes, uint64_t *ret_value) {
    uint64_t value = 0;
    for (unsigned i = 0; i < VARINT_BYTES_MAX && bytes->left > 0; i++) {
        uint8_t byte = *bytes->data++;
        bytes->left--;
        value |= (uint64_t)(byte & 0x7f) << 7 * i;
        if (byte < 0x80) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static bool take(struct bytes *bytes, uint64_t n, struct bytes *ret_taken) {
    if (n > bytes->left)
        return false;
    *ret_taken = (struct bytes){bytes->data, (size_t)n};
    bytes->data += n;
    bytes->left -= (size_t)n;
    return true;
}

// Takes a field; *ret_content is what it holds where it has a length, else of no use. False at the end.
static bool take_field(struct bytes *bytes, uint64_t *ret_key, struct bytes *ret_content) {
    uint64_t value;
    if (!take_varint(bytes, ret_key))
        return false;
    switch (*ret_key & 7) {
    case WIRE_VARINT:
        return take_varint(bytes, &value);
    case WIRE_8_BYTES:
        return take(bytes, 8, ret_content);
    case WIRE_LENGTH:
        return take_varint(bytes, &value) && take(bytes, value, ret_content);
    case WIRE_4_BYTES:
        return take(bytes, 4, ret_content);
    default:
        return false;
    }
}

// `depth` fields of the path lead here.
static bool have_zero(struct bytes bytes, size_t depth) {
    if (depth == PATH_FIELDS)
        return bytes.left > 0 && memchr(bytes.data, 0, bytes.left);
    uint64_t key;
    struct bytes content = {0};
    while (take_field(&bytes, &key, &content)) {
        // At most PATH_FIELDS deep.
        if (key == (path_to_tag[depth] << 3 | WIRE_LENGTH) && have_zero(content, depth + 1))
            return true;
    }
    return false;
}

bool gd_tag_bytes_have_zero(const uint8_t *event, size_t bytes) {
    return have_zero((struct bytes){event, bytes}, 0);
}
