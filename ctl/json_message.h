// A message of protobuf-c as JSON: one object, with the names that the .proto gives.
#pragma once

#include <protobuf-c/protobuf-c.h>

// Prints the fields of a message without its braces, separated by commas. What is absent is null, enums are names,
// 64-bit integers are numbers. Messages may nest; bytes, oneofs and packed fields are not for this.
void gd_json_print_fields(const ProtobufCMessage *message);

// The same with braces; NULL: null.
void gd_json_print_message(const ProtobufCMessage *message);
