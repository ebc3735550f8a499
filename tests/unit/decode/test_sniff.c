/* Formats are told by content, and strangers are described. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/sniff.h"
#include "layoutd/decode/exif.h"

#define SNIFF(literal) pm_sniff(literal, sizeof(literal) - 1)

static void test_formats(void **state)
{
    (void)state;
    assert_int_equal(SNIFF("%PDF-1.4\n"), PM_FORMAT_PDF);
    assert_int_equal(SNIFF("\x1b%-12345X@PJL\n%PDF-1.4\n"), PM_FORMAT_PDF);
    assert_int_equal(SNIFF("\x89PNG\r\n\x1a\n"), PM_FORMAT_PNG);
    assert_int_equal(SNIFF("\xff\xd8\xff\xe0"), PM_FORMAT_JPEG);
    assert_int_equal(SNIFF("II*\0\x08\0\0\0"), PM_FORMAT_TIFF);
    assert_int_equal(SNIFF("MM\0*\0\0\0\x08"), PM_FORMAT_TIFF);
    assert_int_equal(SNIFF("RIFF\x10\0\0\0WEBPVP8 "), PM_FORMAT_WEBP);
    assert_int_equal(SNIFF("RIFF\x10\0\0\0WAVEfmt "), PM_FORMAT_UNKNOWN);
    assert_int_equal(SNIFF("GIF89a"), PM_FORMAT_GIF);
    assert_int_equal(SNIFF("GIF90a"), PM_FORMAT_UNKNOWN);
    assert_int_equal(SNIFF("BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0"), PM_FORMAT_BMP);
    assert_int_equal(SNIFF("BMW makes cars, not bitmaps"), PM_FORMAT_UNKNOWN);
    assert_int_equal(SNIFF("\x89PN"), PM_FORMAT_UNKNOWN);
    assert_int_equal(pm_sniff(NULL, 0), PM_FORMAT_UNKNOWN);
}

static void test_pdf_header_must_be_near(void **state)
{
    static char bytes[3000];
    (void)state;
    memset(bytes, ' ', sizeof bytes);
    memcpy(bytes + 1019, "%PDF-", 5);
    assert_int_equal(pm_sniff(bytes, sizeof bytes), PM_FORMAT_PDF);
    memset(bytes, ' ', sizeof bytes);
    memcpy(bytes + 1020, "%PDF-", 5);
    assert_int_equal(pm_sniff(bytes, sizeof bytes), PM_FORMAT_UNKNOWN);
}

static void test_names(void **state)
{
    (void)state;
    assert_int_equal(pm_format_from_name("a/b.c/Scan.PDF"), PM_FORMAT_PDF);
    assert_int_equal(pm_format_from_name("x.tar.jpeg"), PM_FORMAT_JPEG);
    assert_int_equal(pm_format_from_name("dir.pdf/file"), PM_FORMAT_UNKNOWN);
    assert_int_equal(pm_format_from_name("png"), PM_FORMAT_UNKNOWN);
    assert_string_equal(pm_format_name(PM_FORMAT_WEBP), "WebP");
    assert_string_equal(pm_format_name((enum pm_format)99), "unknown");
}

static void test_descriptions(void **state)
{
    char text[64];
    (void)state;
    pm_sniff_describe("", 0, text, sizeof text);
    assert_string_equal(text, "is empty");
    pm_sniff_describe("ab", 2, text, sizeof text);
    assert_string_equal(text, "starts with \"ab\"");
    pm_sniff_describe("a\nb", 3, text, sizeof text);
    assert_string_equal(text, "starts with 61 0a 62");
    pm_sniff_describe("\0\0\0\x18"
                      "ftypheic",
                      12, text, sizeof text);
    assert_string_equal(text, "looks like a HEIC picture");
    pm_sniff_describe("\1\2\3\4\5\6\7\10\11", 9, text, 16); /* a small buffer is respected */
    assert_int_equal(strlen(text), 15);
}

static void test_exif(void **state)
{
    static const uint8_t big[] = "Exif\0\0MM\0*\0\0\0\x08\0\x02"
                                 "\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
                                 "\x01\x1a\0\x05\0\0\0\x01\xff\xff\xff\xf0" /* points past the end */
                                 "\0\0\0\0";
    struct pm_exif exif = {1, 0, 0};
    (void)state;
    pm_exif_parse(big, sizeof big - 1, &exif);
    assert_int_equal(exif.orientation, 6);
    assert_true(exif.dpi_x == 0);
    for (size_t cut = 0; cut < sizeof big - 1; cut++) { /* under ASan: no byte past the cut is read */
        uint8_t *copy = test_malloc(cut + 1);
        memcpy(copy, big, cut);
        exif.orientation = 1;
        pm_exif_parse(copy, cut, &exif);
        assert_true(exif.orientation == 1 || exif.orientation == 6);
        test_free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats), cmocka_unit_test(test_pdf_header_must_be_near),
        cmocka_unit_test(test_names),   cmocka_unit_test(test_descriptions),
        cmocka_unit_test(test_exif),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
