/* Shared by the decoder's tests: where the program and the files are, and sources made in memory. */
#ifndef PM_TESTS_UNIT_DECODE_COMMON_H
#define PM_TESTS_UNIT_DECODE_COMMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "layoutd/decode/client.h"

#define PROGRAM PM_BUILD_DIR "/pagemill-decode"
#define DATA    PM_TEST_DATA "/decode/"

static inline int source_of(const void *bytes, size_t size)
{
    int fd = memfd_create("source", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    return fd;
}

/* The program on a file of tests/data/decode; the test fails when it does not open. */
static inline struct pm_decoder *open_file(const char *name, const char *password,
                                           const struct pm_decode_limits *limits)
{
    struct pm_decoder *decoder = NULL;
    struct pm_error err = {0};
    char path[512];
    snprintf(path, sizeof path, DATA "%s", name);
    if (pm_decode_start_path(PROGRAM, path, password, limits, &decoder, &err) != 0)
        fail_msg("%s: %s", name, err.text);
    return decoder;
}

/* The error of a file that must not open. */
static inline struct pm_error open_error(const char *name, const char *password,
                                         const struct pm_decode_limits *limits)
{
    struct pm_decoder *decoder = NULL;
    struct pm_error err = {0};
    char path[512];
    snprintf(path, sizeof path, DATA "%s", name);
    int rc = pm_decode_start_path(PROGRAM, path, password, limits, &decoder, &err);
    assert_null(decoder);
    assert_int_not_equal(rc, 0);
    assert_int_equal(rc, err.code);
    return err;
}

#endif
