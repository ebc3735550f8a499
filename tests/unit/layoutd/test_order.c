/* Reading order from boxes: columns, bands, rows of tables, cards of entries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "layoutd/order.h"
#include "page.h"

#define MAX 400

struct page {
    struct pm_item items[MAX];
    uint32_t count;
};

static void add(struct page *p, float left, float top, float right, float size)
{
    p->items[p->count++] = (struct pm_item){.box = {left, top, right, top + 1.3f * size}, .size = size};
}

/* Items are added in the order in which they should be read, then turned about before they are asked for. */
static void check_order(struct page *p)
{
    struct pm_item turned[MAX] = {0};
    struct pm_place places[MAX];
    struct pm_cut cuts[MAX];
    uint32_t n = p->count, cut_count;
    for (uint32_t i = 0; i < n; i++)
        turned[page_shuffled(i, n)] = p->items[i];
    pm_order_find(turned, n, places, cuts, &cut_count);
    assert_int_equal(cut_count, 0);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(places[i].item, page_shuffled(i, n));
}

/* Prose of `lines` lines: ragged unless justified, baselines `pitch` apart. */
static void prose(struct page *p, float left, float top, float width, unsigned lines, float pitch)
{
    for (unsigned i = 0; i < lines; i++)
        add(p, left, top + pitch * (float)i, left + width * (i % 7 == 6 ? 0.4f : 1.0f), 15);
}

static void test_two_columns(void **state)
{
    (void)state;
    struct page p = {0};
    prose(&p, 100, 200, 480, 30, 24);
    prose(&p, 640, 200, 480, 29, 24); /* on the same baselines */
    check_order(&p);
}

static void test_three_columns_under_a_title(void **state)
{
    (void)state;
    struct page p = {0};
    add(&p, 200, 100, 1000, 30);
    prose(&p, 100, 200, 300, 20, 24);
    prose(&p, 450, 207, 300, 20, 24);
    prose(&p, 800, 200, 300, 19, 24);
    check_order(&p);
}

static void test_heading_across_between_bands(void **state)
{
    (void)state;
    struct page p = {0};
    prose(&p, 100, 100, 480, 12, 24);
    prose(&p, 640, 100, 480, 12, 24);
    add(&p, 100, 450, 900, 22);
    prose(&p, 100, 520, 480, 12, 24);
    prose(&p, 640, 520, 480, 12, 24);
    add(&p, 100, 900, 1100, 15);
    check_order(&p);
}

static void test_ragged_columns_off_the_grid(void **state)
{
    (void)state;
    struct page p = {0};
    const float shares[] = {0.9f, 0.5f, 0.8f, 0.3f, 0.95f, 0.7f, 0.4f, 0.85f};
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < 24 + c; i++)
            add(&p, c ? 640 : 100, 200 + 22.7f * (float)i + (float)(i / 5) * 9 * (c ? 1.4f : 1),
                (c ? 640 : 100) + 460 * shares[(i * 3 + c) % 8], 15);
    check_order(&p);
}

static void test_table_without_rules_row_by_row(void **state)
{
    (void)state;
    struct page p = {0};
    const float ends[] = {180, 260, 150, 230, 300};
    for (int r = 0; r < 12; r++) {
        float y = 300 + 26 * (float)r;
        add(&p, 100, y, ends[r % 5], 15);
        add(&p, 420, y, 420 + ends[(r * 2) % 5], 15);
        if (r != 4)
            add(&p, 800, y, 800 + ends[(r * 3) % 5], 15);
    }
    check_order(&p);
}

static void test_card_of_entries_in_two_columns(void **state)
{
    (void)state;
    struct page p = {0};
    for (int c = 0; c < 2; c++) {
        float x = c ? 640 : 60, y = 100;
        for (int section = 0; section < 5; section++) {
            add(&p, x, y, x + 180, 22);
            y += c ? 41 : 37;
            for (int r = 0; r < 6 + (section + c) % 3; r++, y += 24) {
                add(&p, x, y, x + 120 + (float)(r * 53 % 110), 15);
                add(&p, x + 300, y, x + 380 + (float)(r * 31 % 120), 15);
            }
            y += 10;
        }
    }
    check_order(&p);
}

static void test_line_joined_across_the_gutter_is_cut(void **state)
{
    (void)state;
    struct page p = {0};
    prose(&p, 100, 200, 480, 20, 24);
    prose(&p, 640, 200, 480, 20, 24);
    struct pm_gap gap = {580, 640};
    p.items[8].box.right = 1120; /* takes the ninth line of the right column in */
    p.items[8].gaps = &gap;
    p.items[8].gap_count = 1;
    p.items[28] = p.items[--p.count];
    struct pm_place places[MAX];
    struct pm_cut cuts[MAX];
    uint32_t cut_count;
    pm_order_find(p.items, p.count, places, cuts, &cut_count);
    assert_int_equal(cut_count, 1);
    assert_int_equal(cuts[0].item, 8);
    assert_true(cuts[0].x > 580 && cuts[0].x < 640);
}

static void test_leaning_row_stays_one_row(void **state)
{
    (void)state;
    struct page p = {0};
    for (int r = 0; r < 5; r++)
        for (int c = 0; c < 8; c++)
            add(&p, 100 + 130 * (float)c, 100 + 40 * (float)r + 1.8f * (float)c, 180 + 130 * (float)c, 15);
    check_order(&p);
}

static void test_nothing_and_one(void **state)
{
    (void)state;
    struct pm_place place;
    struct pm_cut cut;
    uint32_t cut_count = 7;
    struct pm_item item = {.box = {10, 10, 20, 20}, .size = 10};
    pm_order_find(&item, 0, &place, &cut, &cut_count);
    assert_int_equal(cut_count, 0);
    pm_order_find(&item, 1, &place, &cut, &cut_count);
    assert_int_equal(place.item, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_columns),
        cmocka_unit_test(test_three_columns_under_a_title),
        cmocka_unit_test(test_heading_across_between_bands),
        cmocka_unit_test(test_ragged_columns_off_the_grid),
        cmocka_unit_test(test_table_without_rules_row_by_row),
        cmocka_unit_test(test_card_of_entries_in_two_columns),
        cmocka_unit_test(test_line_joined_across_the_gutter_is_cut),
        cmocka_unit_test(test_leaning_row_stays_one_row),
        cmocka_unit_test(test_nothing_and_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
