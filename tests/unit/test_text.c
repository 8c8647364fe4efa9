#include "text.h"

#include <criterion/criterion.h>
#include <string.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define BYTES(literal) literal, sizeof(literal) - 1

static const struct {
    const char *what, *text;
    size_t bytes;
    bool clean;
} texts[] = {
    {"nothing", BYTES(""), true},
    {"ASCII", BYTES("layer1/weight [0] \"x\" ~"), true},
    {"first printable", BYTES(" "), true},
    {"NUL", BYTES("a\0b"), false},
    {"U+0001", BYTES("\x01"), false},
    {"tab", BYTES("a\tb"), false},
    {"newline", BYTES("a\nb"), false},
    {"U+001F", BYTES("\x1f"), false},
    {"U+007E", BYTES("\x7e"), true},
    {"U+007F", BYTES("\x7f"), false},
    {"U+0080, first C1", BYTES("\xc2\x80"), false},
    {"U+0085", BYTES("\xc2\x85"), false},
    {"U+009F, last C1", BYTES("\xc2\x9f"), false},
    {"U+00A0", BYTES("\xc2\xa0"), true},
    {"U+07FF", BYTES("\xdf\xbf"), true},
    {"U+0800", BYTES("\xe0\xa0\x80"), true},
    {"U+D7FF", BYTES("\xed\x9f\xbf"), true},
    {"U+D800, first surrogate", BYTES("\xed\xa0\x80"), false},
    {"U+DFFF, last surrogate", BYTES("\xed\xbf\xbf"), false},
    {"U+E000", BYTES("\xee\x80\x80"), true},
    {"U+FFFF", BYTES("\xef\xbf\xbf"), true},
    {"U+10000", BYTES("\xf0\x90\x80\x80"), true},
    {"U+10FFFF", BYTES("\xf4\x8f\xbf\xbf"), true},
    {"U+110000", BYTES("\xf4\x90\x80\x80"), false},
    {"U+13FFFF", BYTES("\xf4\xbf\xbf\xbf"), false},
    {"U+140000", BYTES("\xf5\x80\x80\x80"), false},
    {"U+1FFFFF", BYTES("\xf7\xbf\xbf\xbf"), false},
    {"lead of five bytes", BYTES("\xf8\x88\x80\x80\x80"), false},
    {"0xfe", BYTES("\xfe"), false},
    {"0xff", BYTES("\xff"), false},
    {"overlong NUL", BYTES("\xc0\x80"), false},
    {"overlong slash in 2", BYTES("\xc0\xaf"), false},
    {"overlong U+007F in 2", BYTES("\xc1\xbf"), false},
    {"overlong slash in 3", BYTES("\xe0\x80\xaf"), false},
    {"overlong U+07FF in 3", BYTES("\xe0\x9f\xbf"), false},
    {"overlong slash in 4", BYTES("\xf0\x80\x80\xaf"), false},
    {"overlong U+FFFF in 4", BYTES("\xf0\x8f\xbf\xbf"), false},
    {"continuation alone", BYTES("\x80"), false},
    {"last continuation alone", BYTES("\xbf"), false},
    {"2 bytes, truncated", BYTES("a\xc3"), false},
    {"3 bytes, truncated after 1", BYTES("\xe2"), false},
    {"3 bytes, truncated after 2", BYTES("\xe2\x82"), false},
    {"4 bytes, truncated after 3", BYTES("\xf0\x9f\x98"), false},
    {"2 bytes, broken by ASCII",
     BYTES("\xc3"
           "a"),
     false},
    {"3 bytes, broken by ASCII",
     BYTES("\xe2\x82"
           "a"),
     false},
    {"3 bytes, broken by a lead", BYTES("\xe2\x82\xc3"), false},
    {"mixed", BYTES("na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80"), true},
    {"bad at the end", BYTES("na\xc3\xafve \xff"), false},
};

Test(text, utf8_without_control_characters_is_clean) {
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        cr_expect_eq(gd_text_is_clean(texts[i].text, texts[i].bytes), texts[i].clean, "%s", texts[i].what);
}

// Whatever lies behind the text must not complete it.
Test(text, what_follows_a_text_is_not_read) {
    cr_expect_not(gd_text_is_clean("\xe2\x82\xac", 2));
    cr_expect(gd_text_is_clean("a\xff", 1));
}

Test(text, clean_bytes_end_with_a_whole_character) {
    const struct {
        const char *text;
        size_t bytes, clean;
    } cases[] = {{"", 0, 0},       {"ab", 2, 2},   {"a\xc3\xbc", 3, 3}, {"a\xc3\xbc", 2, 1}, {"\xe2\x82\xac", 2, 0},
                 {"ab\ncd", 5, 2}, {"a\xff", 2, 1}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        cr_expect_eq(gd_text_clean_bytes(cases[i].text, cases[i].bytes), cases[i].clean, "%zu", i);
}

// All that two bytes can be, against the definition: two ASCII characters or one of two bytes.
Test(text, every_pair_of_bytes_is_judged_right) {
    for (unsigned a = 0; a < 256; a++)
        for (unsigned b = 0; b < 256; b++) {
            char text[2] = {(char)a, (char)b};
            bool ascii = a >= 0x20 && a < 0x7f && b >= 0x20 && b < 0x7f;
            unsigned code_point = (a & 0x1f) << 6 | (b & 0x3f);
            bool pair = (a & 0xe0) == 0xc0 && (b & 0xc0) == 0x80 && code_point >= 0xa0;
            cr_assert_eq(gd_text_is_clean(text, 2), ascii || pair, "%02x %02x", a, b);
        }
}

Test(text, a_name_has_1_to_255_bytes) {
    const struct {
        size_t bytes;
        bool name;
    } cases[] = {{0, false}, {1, true}, {254, true}, {255, true}, {256, false}, {1000, false}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char text[1024] = "";
        memset(text, 'x', cases[i].bytes);
        cr_expect_eq(gd_text_is_name(text), cases[i].name, "%zu bytes", cases[i].bytes);
    }
    cr_expect_not(gd_text_is_name("a\nb"));
    cr_expect_not(gd_text_is_name("\xff"));
    cr_expect(gd_text_is_name("\xe2\x82\xac"));
}

Test(text, a_run_is_a_relative_path_of_plain_components) {
    const struct {
        const char *text;
        bool run;
    } cases[] = {
        {"", true},          {"a", true},
        {"a/b", true},       {"a/b/c.d_e=f,g+h-i", true},
        {"...", true},       {".hidden", true},
        {"a..", true},       {"..a", true},
        {"a/...", true},     {"0", true},
        {"-", true},         {"=", true},
        {".", false},        {"..", false},
        {"./a", false},      {"../a", false},
        {"a/.", false},      {"a/..", false},
        {"a/../b", false},   {"a/./b", false},
        {"/", false},        {"/a", false},
        {"//", false},       {"a/", false},
        {"a//b", false},     {"a/b/", false},
        {"a b", false},      {"a\\b", false},
        {"a:b", false},      {"~", false},
        {"a*", false},       {"a\nb", false},
        {"\xc3\xa9", false}, {"a/\xe2\x82\xac", false},
        {"a\x7f", false},    {"\x01", false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        cr_expect_eq(gd_text_is_run(cases[i].text), cases[i].run, "\"%s\"", cases[i].text);
}

Test(text, a_run_takes_every_allowed_character_and_no_other) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._=,+-";
    for (int c = 1; c < 256; c++) {
        char text[] = {'x', (char)c, 'x', '\0'};
        cr_expect_eq(gd_text_is_run(text), c == '/' || strchr(allowed, c) != NULL, "character %d", c);
    }
}

Test(text, lengths_of_a_run_are_bounded) {
    const struct {
        size_t bytes, component_bytes;
        bool run;
    } cases[] = {
        {255, 255, true},  {256, 256, false},  {1023, 255, true}, {1024, 200, false},
        {1023, 100, true}, {1024, 100, false}, {511, 255, true},  {600, 256, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char text[2048] = "";
        for (size_t at = 0; at < cases[i].bytes; at++)
            text[at] = at % (cases[i].component_bytes + 1) == cases[i].component_bytes ? '/' : 'x';
        cr_assert_neq(text[cases[i].bytes - 1], '/');
        cr_expect_eq(gd_text_is_run(text), cases[i].run, "%zu bytes in components of %zu", cases[i].bytes,
                     cases[i].component_bytes);
    }
}

Test(text, a_printable_copy_is_cut_and_masked) {
    const struct {
        size_t size;
        const char *source, *copy;
    } cases[] = {
        {8, "abc", "abc"}, {4, "abc", "abc"},         {3, "abc", "ab"},      {1, "abc", ""},
        {8, "", ""},       {8, "a\nb\x7f~", "a?b?~"}, {8, "\xc3\xa9", "??"}, {4, "\x1b[2J", "?[2"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char copy[9];
        memset(copy, '#', sizeof(copy));
        gd_text_copy_printable(copy, cases[i].size, cases[i].source);
        cr_expect_str_eq(copy, cases[i].copy, "case %zu", i);
        cr_expect_eq(copy[cases[i].size], '#', "case %zu", i);
    }
}
