#include "png_image.h"

#include <assert.h>
#include <png.h>
#include <string.h>
#include <zlib.h>

enum {
    SIGNATURE_BYTES = 8,
    CHUNK_BYTES = 12, // length, name and CRC around its data
    IHDR_BYTES = 13,
    STREAM_BYTES = 2 + 4,     // a zlib stream's header and checksum
    BLOCK_BYTES = 5,          // a stored block's header
    BLOCK_DATA_MAX = 65535,   // what its 16 bits can tell
    LIBRARY_BYTES = 16 << 10, // measured: libpng 1.6.39 takes 2.3 KB for what is used of it here
    LIBRARY_ALIGNMENT = 16,
};

// Where the file goes, and what libpng allocates from.
struct output {
    uint8_t *buffer;
    size_t capacity, used;
    size_t library_used;
    _Alignas(LIBRARY_ALIGNMENT) uint8_t library[LIBRARY_BYTES];
};

// A zlib stream of stored blocks, in the data of a chunk. It is made here because deflate's versions cut their stored
// blocks differently: the file's bytes are the same with every one of them.
struct stream {
    png_structp png;
    size_t left;          // of its content
    size_t left_in_block; // of these
    uLong checksum;
};

static size_t content_bytes(uint32_t width, uint32_t height) {
    return (size_t)height * (1 + (size_t)width); // a filter's number before each row
}

static size_t stream_bytes(size_t content) {
    return STREAM_BYTES + content + (content + BLOCK_DATA_MAX - 1) / BLOCK_DATA_MAX * BLOCK_BYTES;
}

size_t gd_png_bytes(uint32_t width, uint32_t height, uint32_t n_colours) {
    return SIGNATURE_BYTES + CHUNK_BYTES + IHDR_BYTES + CHUNK_BYTES + 3 * (size_t)n_colours + CHUNK_BYTES +
           stream_bytes(content_bytes(width, height)) + CHUNK_BYTES;
}

static png_voidp take_memory(png_structp png, png_alloc_size_t bytes) {
    struct output *output = png_get_mem_ptr(png);
    size_t whole = (bytes + LIBRARY_ALIGNMENT - 1) / LIBRARY_ALIGNMENT * LIBRARY_ALIGNMENT;
    if (whole < bytes || whole > LIBRARY_BYTES - output->library_used)
        return NULL;
    void *memory = output->library + output->library_used;
    output->library_used += whole;
    return memory;
}

static void leave_memory(png_structp png, png_voidp memory) {
    (void)png, (void)memory; // all of it goes with the output
}

static void append(png_structp png, png_bytep data, size_t bytes) {
    struct output *output = png_get_io_ptr(png);
    if (bytes > output->capacity - output->used)
        png_error(png, "the buffer is full");
    memcpy(output->buffer + output->used, data, bytes);
    output->used += bytes;
}

static void flush(png_structp png) {
    (void)png;
}

// libpng's own would print the text.
static _Noreturn void fail(png_structp png, png_const_charp text) {
    (void)text;
    png_longjmp(png, 1);
}

static void ignore(png_structp png, png_const_charp text) {
    (void)png, (void)text;
}

static void begin_block(struct stream *stream) {
    stream->left_in_block = stream->left < BLOCK_DATA_MAX ? stream->left : BLOCK_DATA_MAX;
    size_t bytes = stream->left_in_block;
    const uint8_t header[BLOCK_BYTES] = {
        stream->left == bytes, // the last one
        (uint8_t)bytes,        (uint8_t)(bytes >> 8), (uint8_t)~bytes, (uint8_t)(~bytes >> 8),
    };
    png_write_chunk_data(stream->png, header, sizeof(header));
}

static void put(struct stream *stream, const uint8_t *data, size_t bytes) {
    stream->checksum = adler32(stream->checksum, data, (uInt)bytes);
    while (bytes > 0) {
        if (stream->left_in_block == 0)
            begin_block(stream);
        size_t part = bytes < stream->left_in_block ? bytes : stream->left_in_block;
        png_write_chunk_data(stream->png, data, part);
        data += part, bytes -= part;
        stream->left_in_block -= part, stream->left -= part;
    }
}

static void write_pixels(png_structp png, const struct gd_png_image *image) {
    static const uint8_t header[] = {0x78, 0x01}; // deflated with a window of 32 KiB, fastest
    uint8_t row[1 + GD_PNG_WIDTH_MAX] = {0};      // filter 0: none
    struct stream stream = {.png = png, .left = content_bytes(image->width, image->height), .checksum = 1};

    png_write_chunk_start(png, (png_const_bytep) "IDAT", (png_uint_32)stream_bytes(stream.left));
    png_write_chunk_data(png, header, sizeof(header));
    for (uint32_t y = 0; y < image->height; y++) {
        image->draw_row(image->context, y, row + 1);
        put(&stream, row, 1 + (size_t)image->width);
    }
    const uint8_t checksum[] = {(uint8_t)(stream.checksum >> 24), (uint8_t)(stream.checksum >> 16),
                                (uint8_t)(stream.checksum >> 8), (uint8_t)stream.checksum};
    png_write_chunk_data(png, checksum, sizeof(checksum));
    png_write_chunk_end(png);
}

// libpng comes back here where something fails.
static bool write_file(png_structp png, png_infop info, const struct gd_png_image *image) {
    png_color palette[GD_PNG_COLOURS_MAX];
    for (uint32_t i = 0; i < image->n_colours; i++)
        palette[i] = (png_color){image->palette[i].red, image->palette[i].green, image->palette[i].blue};

    if (setjmp(png_jmpbuf(png)))
        return false;
    png_set_IHDR(png, info, image->width, image->height, 8, PNG_COLOR_TYPE_PALETTE, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_PLTE(png, info, palette, (int)image->n_colours);
    png_write_info(png, info);
    write_pixels(png, image);
    png_write_chunk(png, (png_const_bytep) "IEND", NULL, 0);
    return true;
}

bool gd_png_write(const struct gd_png_image *image, uint8_t *buffer, size_t capacity) {
    assert(image->width <= GD_PNG_WIDTH_MAX && image->n_colours <= GD_PNG_COLOURS_MAX);
    struct output output;
    output.buffer = buffer;
    output.capacity = capacity;
    output.used = output.library_used = 0;

    png_structp png =
        png_create_write_struct_2(PNG_LIBPNG_VER_STRING, NULL, fail, ignore, &output, take_memory, leave_memory);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (info)
        png_set_write_fn(png, &output, append, flush);
    bool written = info && write_file(png, info, image);
    png_destroy_write_struct(&png, &info);
    return written && output.used == gd_png_bytes(image->width, image->height, image->n_colours);
}
