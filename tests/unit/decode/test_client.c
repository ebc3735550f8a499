/* The client against a decoder that crashes, hangs and lies, and against files that are none. After each case
 * no child and no descriptor may be left. */
#include "common.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"

#define EVIL PM_BUILD_DIR "/tests/evil_decoder"

static int open_descriptors(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static int before;

static int setup(void **state)
{
    (void)state;
    before = open_descriptors();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (open_descriptors() != before) {
        print_error("%d descriptors before, %d after\n", before, open_descriptors());
        return -1;
    }
    if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD) {
        print_error("a child is left\n");
        return -1;
    }
    return 0;
}

static int start_evil(const char *kind, const struct pm_decode_limits *limits, struct pm_decoder **decoder,
                      struct pm_error *err)
{
    char text[100];
    snprintf(text, sizeof text, "%%PDF-evil:%s", kind);
    int fd = source_of(text, strlen(text));
    int rc = pm_decode_start(EVIL, fd, NULL, limits, decoder, err);
    close(fd);
    return rc;
}

static void test_lies_about_opening(void **state)
{
    static const struct {
        const char *kind;
        int code;
        const char *text;
    } cases[] = {
        {"exit", PM_ECRASH, "exit (status 3)"},    {"close", PM_ECRASH, "SIGKILL"},
        {"magic", PM_EPROTO, "nonsense"},          {"serial", PM_EPROTO, "nonsense"},
        {"kind", PM_EPROTO, "nonsense"},           {"positive-code", PM_EPROTO, "nonsense"},
        {"unknown-code", PM_EPROTO, "nonsense"},   {"no-pages", PM_EPROTO, "nonsense"},
        {"too-many-pages", PM_EPROTO, "nonsense"}, {"short", PM_EPROTO, "nonsense"},
        {"long", PM_EPROTO, "nonsense"},           {"descriptor-with-open", PM_EPROTO, "nonsense"},
        {"endless-text", PM_EFORMAT, "XXXX"},      {"out-of-memory", PM_ELIMIT, "more memory"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pm_decoder *decoder = NULL;
        struct pm_error err = {0};
        int rc = start_evil(cases[i].kind, NULL, &decoder, &err);
        if (rc != cases[i].code || err.code != rc || !strstr(err.text, cases[i].text))
            fail_msg("%s: code %d, %s", cases[i].kind, rc, err.text);
        assert_null(decoder);
    }
}

static void test_title_is_tamed(void **state)
{
    struct pm_decoder *decoder;
    struct pm_error err;
    (void)state;
    assert_int_equal(start_evil("endless-title", NULL, &decoder, &err), 0);
    assert_int_equal(strlen(pm_decode_info(decoder)->title), sizeof pm_decode_info(decoder)->title - 1);
    pm_decode_stop(&decoder);
    assert_int_equal(start_evil("title-with-controls", NULL, &decoder, &err), 0);
    assert_string_equal(pm_decode_info(decoder)->title, "a?[2J?b");
    pm_decode_stop(&decoder);
}

static void test_lies_about_sizes(void **state)
{
    static const char *const kinds[] = {"sizes-count", "sizes-none", "sizes-huge", "sizes-nan"};
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct pm_decoder *decoder;
        struct pm_decode_size size;
        struct pm_error err = {0};
        assert_int_equal(start_evil(kinds[i], NULL, &decoder, &err), 0);
        if (pm_decode_page_size(decoder, 0, 0, &size, &err) != PM_EPROTO)
            fail_msg("%s was believed", kinds[i]);
        assert_int_equal(pm_decode_pid(decoder), 0);
        pm_decode_stop(&decoder);
    }
}

static void test_lies_about_pixels(void **state)
{
    static const struct {
        const char *kind;
        int code;
    } cases[] = {
        {"small-file", PM_EPROTO}, {"large-file", PM_EPROTO},   {"no-seals", PM_EPROTO},
        {"may-shrink", PM_EPROTO}, {"no-file", PM_EPROTO},      {"device", PM_EPROTO},
        {"socket", PM_EPROTO},     {"two-channels", PM_EPROTO}, {"no-width", PM_EPROTO},
        {"huge", PM_EPROTO},       {"stride", PM_EPROTO},       {"stride-wraps", PM_EPROTO},
        {"dpi-nan", PM_EPROTO},    {"wrong-kind", PM_EPROTO},   {"error-with-file", PM_EFORMAT},
        {"many-files", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pm_decoder *decoder;
        struct pm_image image;
        struct pm_error err = {0};
        double dpi;
        assert_int_equal(start_evil(cases[i].kind, NULL, &decoder, &err), 0);
        int rc = pm_decode_render(decoder, 0, 0, &image, &dpi, &err);
        if (rc != cases[i].code)
            fail_msg("%s: code %d, %s", cases[i].kind, rc, err.text);
        if (rc)
            assert_null(image.pixels);
        pm_decode_image_free(&image);
        pm_decode_stop(&decoder);
    }
}

/* The page that kills the decoder is told by number and signal; the pages around it are delivered. */
static void test_crash_costs_one_page(void **state)
{
    struct pm_decoder *decoder;
    struct pm_image image;
    struct pm_error err = {0};
    double dpi;
    (void)state;
    assert_int_equal(start_evil("crash-on-2", NULL, &decoder, &err), 0);
    assert_int_equal(pm_decode_render(decoder, 0, 0, &image, &dpi, &err), 0);
    int first = pm_decode_pid(decoder);
    assert_int_equal(image.width_px, 10);
    assert_int_equal(pm_decode_render(decoder, 1, 0, &(struct pm_image){0}, &dpi, &err), PM_ECRASH);
    assert_non_null(strstr(err.text, "SIGSEGV"));
    assert_non_null(strstr(err.text, "page 2"));
    assert_int_equal(pm_decode_pid(decoder), 0);
    assert_int_equal(image.pixels[299], 0); /* still mapped */
    pm_decode_image_free(&image);
    assert_int_equal(pm_decode_render(decoder, 2, 0, &image, &dpi, &err), 0);
    assert_int_not_equal(pm_decode_pid(decoder), first);
    pm_decode_image_free(&image);
    pm_decode_stop(&decoder);
}

static void test_deaths_are_told_apart(void **state)
{
    static const char *const kinds[] = {"forbidden", "killed"}, *const texts[] = {"sandbox forbids",
                                                                                  "from outside"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct pm_decoder *decoder;
        struct pm_image image;
        struct pm_error err = {0};
        double dpi;
        assert_int_equal(start_evil(kinds[i], NULL, &decoder, &err), 0);
        assert_int_equal(pm_decode_render(decoder, 0, 0, &image, &dpi, &err), PM_ECRASH);
        if (!strstr(err.text, texts[i]))
            fail_msg("%s: %s", kinds[i], err.text);
        pm_decode_stop(&decoder);
    }
}

static void test_deadline(void **state)
{
    struct pm_decoder *decoder = NULL;
    struct pm_decode_limits limits;
    struct pm_error err = {0};
    (void)state;
    pm_decode_limits_default(&limits);
    limits.timeout_us = 150000;
    assert_int_equal(start_evil("hang", &limits, &decoder, &err), PM_ETIMEOUT);
    assert_non_null(strstr(err.text, "longer than 0.15 s"));
}

static void test_cancel(void **state)
{
    struct pm_decoder *decoder = NULL;
    struct pm_decode_limits limits;
    struct pm_error err = {0};
    int pipe_fds[2];
    (void)state;
    pm_decode_limits_default(&limits);
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(write(pipe_fds[1], "x", 1), 1);
    limits.cancel_fd = pipe_fds[0];
    assert_int_equal(start_evil("hang", &limits, &decoder, &err), PM_ECANCELLED);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

/* Its own death must take the decoder along, or a crash loop would fill the machine. */
static void test_decoder_dies_with_its_parent(void **state)
{
    int pipe_fds[2], pid = 0;
    char byte;
    (void)state;
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0); /* the orphan comes to us */
    pid_t middle = fork();
    if (middle == 0) {
        struct pm_decoder *decoder = NULL;
        if (pm_decode_start_path(PROGRAM, DATA "pages.pdf", NULL, NULL, &decoder, NULL) == 0)
            pid = pm_decode_pid(decoder);
        if (write(pipe_fds[1], &pid, sizeof pid) != sizeof pid)
            _exit(1);
        pause();
        _exit(0);
    }
    assert_int_equal(read(pipe_fds[0], &pid, sizeof pid), sizeof pid);
    assert_true(pid > 0);
    kill(middle, SIGKILL);
    assert_int_equal(waitpid(middle, NULL, 0), middle);
    assert_int_equal(waitpid(pid, NULL, 0), pid); /* ends, or the test times out */
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
    close(pipe_fds[1]);
    assert_int_equal(read(pipe_fds[0], &byte, 1), 0); /* and it did not inherit our descriptors */
    close(pipe_fds[0]);
}

/* The child has room for 64 descriptors: it must not keep those of pages gone by. */
static void test_many_pages(void **state)
{
    struct pm_decoder *decoder = NULL;
    struct pm_error err = {0};
    (void)state;
    assert_int_equal(pm_decode_start_path(PROGRAM, DATA "pages.pdf", NULL, NULL, &decoder, &err), 0);
    int pid = pm_decode_pid(decoder);
    for (int i = 0; i < 200; i++) {
        struct pm_image image;
        double dpi;
        if (pm_decode_render(decoder, i % 4, 50, &image, &dpi, &err))
            fail_msg("round %d: %s", i, err.text);
        pm_decode_image_free(&image);
    }
    assert_int_equal(pm_decode_pid(decoder), pid);
    pm_decode_stop(&decoder);
}

/* "worn" fails for lack of memory on every page but the first of a child: each page comes from a fresh one.
 */
static void test_worn_child_is_replaced(void **state)
{
    struct pm_decoder *decoder;
    struct pm_image image;
    struct pm_error err = {0};
    double dpi;
    (void)state;
    assert_int_equal(start_evil("worn", NULL, &decoder, &err), 0);
    for (int page = 0; page < 3; page++) {
        int pid = pm_decode_pid(decoder);
        assert_int_equal(pm_decode_render(decoder, page, 0, &image, &dpi, &err), 0);
        assert_true(page == 0 || pm_decode_pid(decoder) != pid);
        pm_decode_image_free(&image);
    }
    pm_decode_stop(&decoder);
}

static void test_program_that_is_not_there(void **state)
{
    struct pm_decoder *decoder = NULL;
    struct pm_error err = {0};
    (void)state;
    int rc = pm_decode_start_path("/nowhere/pagemill-decode", DATA "one.pdf", NULL, NULL, &decoder, &err);
    assert_int_equal(rc, PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "/nowhere/pagemill-decode"));
}

static void test_files_that_are_none(void **state)
{
    struct pm_decoder *decoder = NULL;
    struct pm_error err = {0};
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"", "is empty"},
        {"Hello, world", "starts with \"Hello, wor\""},
        {"\x7f"
         "ELF\x02\x01\x01",
         "starts with 7f 45 4c 46 02 01 01"},
        {"PK\x03\x04 and so on", "ZIP archive"},
        {"%!PS-Adobe", "PostScript"},
        {"\x89PNG\r\n\x1a\n", "damaged PNG"},
        {"\xff\xd8\xff\xe0", "damaged JPEG"},
        {"%PDF-1.7\nnothing else", "damaged PDF"},
        {"GIF89a", "damaged GIF"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int fd = source_of(cases[i].bytes, strlen(cases[i].bytes));
        int rc = pm_decode_start(PROGRAM, fd, NULL, NULL, &decoder, &err);
        close(fd);
        if (rc != PM_EFORMAT || !strstr(err.text, cases[i].text))
            fail_msg("case %zu: code %d, %s", i, rc, err.text);
    }
    assert_int_equal(pm_decode_start_path(PROGRAM, "/", NULL, NULL, &decoder, &err), PM_EFORMAT);
    assert_int_equal(pm_decode_start_path(PROGRAM, "/nowhere", NULL, NULL, &decoder, &err), PM_ENOTFOUND);
    assert_int_equal(pm_decode_start_path(PROGRAM, "/dev/zero", NULL, NULL, &decoder, &err), PM_EFORMAT);
}

static void test_limits(void **state)
{
    struct pm_decode_limits limits;
    struct pm_image image;
    double dpi;
    (void)state;
    struct pm_error err = open_error("huge-60000.png", NULL, NULL);
    assert_int_equal(err.code, PM_ELIMIT);
    assert_non_null(strstr(err.text, "60000 x 60000"));
    assert_non_null(strstr(err.text, "120 megapixels"));

    pm_decode_limits_default(&limits);
    limits.max_pages = 3;
    err = open_error("pages.pdf", NULL, &limits);
    assert_int_equal(err.code, PM_ELIMIT);
    assert_non_null(strstr(err.text, "has 7 pages; at most 3"));
    limits.max_pages = 2;
    err = open_error("pages.tif", NULL, &limits);
    assert_int_equal(err.code, PM_ELIMIT);

    err = open_error("bomb-pages.pdf", NULL, NULL);
    assert_int_equal(err.code, PM_EFORMAT);

    pm_decode_limits_default(&limits);
    limits.timeout_us = 1000000;
    struct pm_decoder *decoder = open_file("bomb-forms.pdf", NULL, &limits);
    assert_int_equal(pm_decode_render(decoder, 0, 0, &image, &dpi, &err), PM_ETIMEOUT);
    pm_decode_stop(&decoder);
}

#ifndef PM_SANITIZED /* there the address space is not limited */
static void test_memory_limit(void **state)
{
    struct pm_decode_limits limits;
    struct pm_image image;
    struct pm_error err = {0};
    double dpi;
    (void)state;
    pm_decode_limits_default(&limits);
    limits.memory_bytes = (uint64_t)64 << 20;
    limits.pdf_longest_px = 10000; /* a surface of 200 MB */
    struct pm_decoder *decoder = open_file("pages.pdf", NULL, &limits);
    assert_int_equal(pm_decode_render(decoder, 5, 0, &image, &dpi, &err), PM_ELIMIT);
    assert_non_null(strstr(err.text, "memory"));
    assert_int_equal(pm_decode_render(decoder, 0, 0, &image, &dpi, &err), 0);
    pm_decode_image_free(&image);
    pm_decode_stop(&decoder);
}
#endif

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_lies_about_opening),
        CASE(test_title_is_tamed),
        CASE(test_lies_about_sizes),
        CASE(test_lies_about_pixels),
        CASE(test_crash_costs_one_page),
        CASE(test_deaths_are_told_apart),
        CASE(test_deadline),
        CASE(test_cancel),
        CASE(test_decoder_dies_with_its_parent),
        CASE(test_many_pages),
        CASE(test_worn_child_is_replaced),
        CASE(test_program_that_is_not_there),
        CASE(test_files_that_are_none),
        CASE(test_limits),
#ifndef PM_SANITIZED
        CASE(test_memory_limit),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
