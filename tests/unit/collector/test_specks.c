/* What the layout found by its ink alone is text only when the reader is sure of it. */
#include "fixture.h"

static void test_unsure_finds_are_no_text(void **state)
{
    struct drawn d;
    (void)state;
    drawn_init(&d);
    drawn_region(&d, PM_LABEL_TEXT, 0, 0, "a speck");
    d.page.crops[0].score = PM_SCORE_RESCUED - 0.05f;
    d.texts[0].confidence = PM_RESCUED_CONFIDENCE - 0.05f;
    struct pm_out_page page = drawn_format(&d);
    assert_string_equal(page.regions[0].content, "");
    assert_int_equal(page.regions[0].line_count, 0);
    d.texts[0].confidence = PM_RESCUED_CONFIDENCE;
    assert_string_equal(drawn_format(&d).regions[0].content, "a speck");
    d.texts[0].confidence = 0.1f; /* the detector's own finds stay whatever the reader thinks */
    d.page.crops[0].score = PM_SCORE_RESCUED;
    assert_string_equal(drawn_format(&d).regions[0].content, "a speck");
    d.page.crops[0].score = 0.1f; /* and a failure stays visible */
    d.texts[0].error_code = "engine";
    d.texts[0].error_text = "it broke";
    assert_string_equal(drawn_format(&d).regions[0].error_code, "engine");
    drawn_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_unsure_finds_are_no_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
