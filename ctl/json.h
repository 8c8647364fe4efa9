// JSON (RFC 8259) on standard output.
#pragma once

// Prints a 0-terminated text as a JSON string, quotes included; each byte that is no part of valid UTF-8 becomes
// U+FFFD.
void gd_json_print_text(const char *text);

// Prints a number with so many significant digits. JSON has none for "NaN", "Infinity" and "-Infinity": they are
// strings, as in protobuf's JSON.
void gd_json_print_number(double value, int digits);
