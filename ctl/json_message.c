#include "json_message.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "json.h"

enum { DOUBLE_DIGITS = 17 }; // for each value to be read back as the same double

static void print_enum(const ProtobufCEnumDescriptor *descriptor, int number) {
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(descriptor, number);
    if (value)
        gd_json_print_text(value->name);
    else
        printf("%d", number);
}

// One value, where its type would be a member of a message or an element of a list.
static void print_value(const ProtobufCFieldDescriptor *field, const void *value) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
        printf("%" PRId32, *(const int32_t *)value);
        break;
    case PROTOBUF_C_TYPE_UINT32:
        printf("%" PRIu32, *(const uint32_t *)value);
        break;
    case PROTOBUF_C_TYPE_INT64:
        printf("%" PRId64, *(const int64_t *)value);
        break;
    case PROTOBUF_C_TYPE_UINT64:
        printf("%" PRIu64, *(const uint64_t *)value);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        gd_json_print_number(*(const double *)value, DOUBLE_DIGITS);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        fputs(*(const protobuf_c_boolean *)value ? "true" : "false", stdout);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        print_enum(field->descriptor, *(const int *)value);
        break;
    case PROTOBUF_C_TYPE_STRING:
        gd_json_print_text(*(const char *const *)value);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        gd_json_print_message(*(const ProtobufCMessage *const *)value);
        break;
    default:
        fputs("null", stdout);
    }
}

static size_t value_bytes(const ProtobufCFieldDescriptor *field) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_UINT32:
        return sizeof(uint32_t);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_ENUM:
        return sizeof(int);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    default:
        return sizeof(uint64_t);
    }
}

static void print_list(const ProtobufCFieldDescriptor *field, const uint8_t *values, size_t n) {
    putchar('[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            putchar(',');
        print_value(field, values + i * value_bytes(field));
    }
    putchar(']');
}

static bool is_pointer(const ProtobufCFieldDescriptor *field) {
    return field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE;
}

// A pointer says itself that there is nothing, other optional fields have their flag where the quantifier lies.
static bool is_absent(const ProtobufCFieldDescriptor *field, const uint8_t *message) {
    if (is_pointer(field))
        return !*(void *const *)(message + field->offset);
    return field->label == PROTOBUF_C_LABEL_OPTIONAL &&
           !*(const protobuf_c_boolean *)(message + field->quantifier_offset);
}

static void print_field(const ProtobufCFieldDescriptor *field, const uint8_t *message) {
    printf("\"%s\":", field->name);
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        print_list(field, *(const uint8_t *const *)(message + field->offset),
                   *(const size_t *)(message + field->quantifier_offset));
    else if (is_absent(field, message))
        fputs("null", stdout);
    else
        print_value(field, message + field->offset);
}

void gd_json_print_fields(const ProtobufCMessage *message) {
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        if (i > 0)
            putchar(',');
        print_field(&descriptor->fields[i], (const uint8_t *)message);
    }
}

void gd_json_print_message(const ProtobufCMessage *message) {
    if (!message) {
        fputs("null", stdout);
        return;
    }
    putchar('{');
    gd_json_print_fields(message);
    putchar('}');
}
