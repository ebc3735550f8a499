/* Levels of headings over a document. */
#include "fixture.h"

#include "collector/headings.h"

struct sample {
    enum pm_label label;
    uint32_t level; /* of the layout */
    const char *content;
    const char *expected;
};

static void check(const struct sample *samples, uint32_t count, uint32_t per_page)
{
    struct pm_out_region regions[16];
    struct pm_headings headings = {0};
    struct pm_arena arena = {0};
    for (uint32_t i = 0; i < count; i++)
        regions[i] = (struct pm_out_region){
            .label = samples[i].label, .level = samples[i].level, .content = samples[i].content};
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t from = 0; from < count; from += per_page) {
            struct pm_out_page page = {.regions = regions + from,
                                       .region_count = count - from < per_page ? count - from : per_page};
            if (pass)
                pm_headings_apply(&headings, &page, &arena);
            else
                pm_headings_count(&headings, &page);
        }
    for (uint32_t i = 0; i < count; i++) {
        assert_string_equal(regions[i].content, samples[i].expected);
        if (samples[i].level)
            assert_int_equal(regions[i].level, strspn(regions[i].content, "#"));
    }
    pm_arena_free(&arena);
}

static void test_levels_are_closed_up(void **state)
{
    static const struct sample samples[] = {
        {PM_LABEL_DOC_TITLE, 1, "# The Handbook", "# The Handbook"},
        {PM_LABEL_PARAGRAPH_TITLE, 3, "### Before", "## Before"},
        {PM_LABEL_TEXT, 0, "#### no heading", "#### no heading"},
        {PM_LABEL_PARAGRAPH_TITLE, 4, "#### Glass \\#", "### Glass \\#"},
        {PM_LABEL_PARAGRAPH_TITLE, 3, "", ""}, /* nothing was read: stays out of it */
    };
    (void)state;
    check(samples, 4, 4);
    check(samples, 4, 1); /* however the pages are cut */
}

static void test_equal_numbers_get_equal_levels(void **state)
{
    static const struct sample samples[] = {
        {PM_LABEL_DOC_TITLE, 1, "# 3.4. On the first page", "### 3.4. On the first page"},
        {PM_LABEL_PARAGRAPH_TITLE, 3, "### 3\\. Setting up", "## 3\\. Setting up"},
        {PM_LABEL_PARAGRAPH_TITLE, 3, "### 3.5 One", "### 3.5 One"},
        {PM_LABEL_PARAGRAPH_TITLE, 4, "#### 3.6 Two", "### 3.6 Two"},
        {PM_LABEL_PARAGRAPH_TITLE, 3, "### 3.7 Three", "### 3.7 Three"},
        {PM_LABEL_PARAGRAPH_TITLE, 3, "### 3.7.1 Deeper", "#### 3.7.1 Deeper"},
        {PM_LABEL_PARAGRAPH_TITLE, 4, "#### Bold words", "##### Bold words"},
        {PM_LABEL_PARAGRAPH_TITLE, 2, "## 4 Using it", "## 4 Using it"},
    };
    (void)state;
    check(samples, 8, 8);
    check(samples, 8, 3);
}

static void test_numbers(void **state)
{
    (void)state;
    assert_int_equal(pm_heading_depth("1. Before"), 1);
    assert_int_equal(pm_heading_depth("1\\. Before"), 1);
    assert_int_equal(pm_heading_depth("2.10.3 Deep"), 3);
    assert_int_equal(pm_heading_depth("2.10.3. Deep"), 3);
    assert_int_equal(pm_heading_depth("Before 1.2"), 0);
    assert_int_equal(pm_heading_depth("1998"), 0);
    assert_int_equal(pm_heading_depth("1998 report"), 0);
    assert_int_equal(pm_heading_depth("3rd party"), 0);
    assert_int_equal(pm_heading_depth("1.2.3.4.5.6.7 Too deep"), 0);
    assert_int_equal(pm_heading_depth(""), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels_are_closed_up),
        cmocka_unit_test(test_equal_numbers_get_equal_levels),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
