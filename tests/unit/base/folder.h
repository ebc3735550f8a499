/* A fresh folder below /tmp as a test's state, for cmocka's setup and teardown. */
#ifndef PM_TESTS_UNIT_BASE_FOLDER_H
#define PM_TESTS_UNIT_BASE_FOLDER_H

#include <stdlib.h>

#include "base/fs.h"
#include "base/mem.h"

static inline int folder_make(void **state)
{
    char template[] = "/tmp/pm-test-XXXXXX";
    *state = mkdtemp(template) ? pm_xstrdup(template) : NULL;
    return *state ? 0 : -1;
}

static inline int folder_drop(void **state)
{
    pm_fs_remove_tree(*state, NULL);
    free(*state);
    return 0;
}

#endif
