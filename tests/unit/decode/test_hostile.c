/* Damaged files: each seed is cut, flipped and overwritten in a repeatable way, and must give pages or an
 * error, in time, and never an accident of this process. `test_decode_hostile COUNT` makes COUNT mutants of
 * each format (the long form: 2000 and more); 40 by default. In a build with sanitizers a finding ends the
 * child, which shows here as a crash. */
#include "common.h"

#include <fcntl.h>
#include <sys/stat.h>

static int mutants_per_format = 40;

static const struct {
    const char *format;
    const char *seeds[8];
} formats[] = {
    {"PDF", {"pages.pdf", "encrypted-256.pdf", "one.pdf"}},
    {"PNG", {"rgb8.png", "rgb8-interlaced.png", "palette8-alpha.png", "turned6.png", "grey16.png"}},
    {"JPEG", {"colour.jpg", "progressive.jpg", "cmyk-adobe.jpg", "turned6.jpg", "colour-420.jpg"}},
    {"TIFF",
     {"pages.tif", "bits-g4.tif", "colour-jpeg.tif", "tiled.tif", "palette-lzw.tif", "turned7.tif",
      "bits-g3.tif", "fax.tif"}},
    {"WebP", {"lossy.webp", "lossless.webp", "alpha.webp", "animation.webp", "turned8.webp"}},
    {"BMP",
     {"rle8.bmp", "rle4.bmp", "palette4.bmp", "rgb32-alpha.bmp", "os2.bmp", "rgb565.bmp", "rgb24.bmp"}},
    {"GIF", {"animation.gif", "interlaced.gif", "transparent.gif", "palette.gif"}},
};

static uint64_t next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t z = *state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* A third cut, a third with a few bits flipped, a third with a run of bytes set to a telling value. */
static size_t mutate(uint8_t *bytes, size_t size, uint64_t seed)
{
    static const uint8_t telling[] = {0x00, 0xff, 0x7f, 0x80, 0x01};
    uint64_t state = seed;
    switch (next(&state) % 3) {
    case 0:
        return 1 + next(&state) % (size - 1);
    case 1:
        for (uint64_t n = 1 + next(&state) % 8; n; n--)
            bytes[next(&state) % size] ^= (uint8_t)(1u << next(&state) % 8);
        return size;
    default: {
        /* More often in the header, where the sizes are. */
        size_t at = next(&state) % (next(&state) % 2 ? size : size < 64 ? size : 64);
        size_t n = 1 + next(&state) % 4;
        memset(bytes + at, telling[next(&state) % sizeof telling], n < size - at ? n : size - at);
        return size;
    }
    }
}

static size_t load(const char *name, uint8_t *bytes, size_t capacity)
{
    char path[512];
    snprintf(path, sizeof path, DATA "%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, bytes, capacity);
    close(fd);
    assert_true(n > 0 && (size_t)n < capacity);
    return (size_t)n;
}

struct tally {
    int pages, errors, crashes, timeouts;
};

static void count(struct tally *t, int rc, const struct pm_error *err)
{
    if (rc == 0)
        t->pages++;
    else if (rc == PM_ECRASH)
        t->crashes++;
    else if (rc == PM_ETIMEOUT)
        t->timeouts++;
    else
        t->errors++;
    if (rc) {
        assert_int_equal(err->code, rc);
        assert_true(err->text[0] != 0);
        assert_true(rc != PM_EPROTO && rc != PM_EINTERNAL && rc != PM_EINVAL);
    }
}

static void try_mutant(const uint8_t *bytes, size_t size, struct tally *t, const char *label)
{
    struct pm_decode_limits limits;
    struct pm_decoder *decoder = NULL;
    struct pm_error err = {0};
    int crashes = t->crashes;
    pm_decode_limits_default(&limits);
    limits.timeout_us = 20 * 1000000;
    limits.max_source_px = 4000000; /* flipped sizes cost no seconds */
    int fd = source_of(bytes, size);
    int rc = pm_decode_start(PROGRAM, fd, "secret", &limits, &decoder, &err);
    close(fd);
    if (rc)
        count(t, rc, &err);
    for (int page = 0; rc == 0 && page < pm_decode_info(decoder)->page_count && page < 3; page++) {
        struct pm_image image;
        double dpi;
        int page_rc = pm_decode_render(decoder, page, 50, &image, &dpi, &err);
        count(t, page_rc, &err);
        if (page_rc == 0) { /* every byte is there */
            unsigned sum = 0;
            for (size_t i = 0; i < image.stride_bytes * (size_t)image.height_px; i += 512)
                sum += image.pixels[i];
            assert_true(sum < 0xffffffffu);
            pm_decode_image_free(&image);
        }
    }
    pm_decode_stop(&decoder);
    if (t->crashes > crashes)
        print_message("%s: %s\n", label, err.text);
}

static void test_mutants(void **state)
{
    static uint8_t seed[1 << 16], mutant[1 << 16];
    (void)state;
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++) {
        struct tally t = {0};
        size_t seeds = 0;
        while (seeds < 8 && formats[f].seeds[seeds])
            seeds++;
        for (int i = 0; i < mutants_per_format; i++) {
            const char *name = formats[f].seeds[(size_t)i % seeds];
            char label[100];
            size_t size = load(name, seed, sizeof seed);
            memcpy(mutant, seed, size);
            size = mutate(mutant, size, (uint64_t)i + 1);
            snprintf(label, sizeof label, "%s, mutant %d", name, i);
            try_mutant(mutant, size, &t, label);
        }
        print_message("%-4s %d mutants: %d pages, %d errors, %d crashes, %d timeouts\n", formats[f].format,
                      mutants_per_format, t.pages, t.errors, t.crashes, t.timeouts);
        assert_int_equal(t.crashes, 0);
        assert_int_equal(t.timeouts, 0);
        assert_true(t.errors > 0 && t.pages > 0);
    }
}

/* A cut file gives the part that is there, with a warning, or an error: never silence. */
static void test_cuts_are_told(void **state)
{
    static const char *const names[] = {"rgb8.png",      "rgb8-interlaced.png", "colour.jpg",
                                        "lossless.webp", "colour-raw.tif",      "rgb24.bmp",
                                        "palette.gif",   "rgb24-topdown.bmp"};
    static uint8_t bytes[1 << 16];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t size = load(names[i], bytes, sizeof bytes);
        for (size_t tenths = 1; tenths < 10; tenths++) {
            struct pm_decoder *decoder = NULL;
            struct pm_error err = {0};
            struct pm_image image;
            double dpi;
            int fd = source_of(bytes, size * tenths / 10);
            int rc = pm_decode_start(PROGRAM, fd, NULL, NULL, &decoder, &err);
            close(fd);
            if (rc == 0)
                rc = pm_decode_render(decoder, 0, 0, &image, &dpi, &err);
            if (rc == 0) {
                if (!pm_decode_warning(decoder)[0])
                    fail_msg("%s cut at %zu/10: no warning", names[i], tenths);
                pm_decode_image_free(&image);
            } else {
                assert_int_equal(rc, PM_EFORMAT);
            }
            pm_decode_stop(&decoder);
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mutants),
        cmocka_unit_test(test_cuts_are_told),
    };
    if (argc > 1)
        mutants_per_format = atoi(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
