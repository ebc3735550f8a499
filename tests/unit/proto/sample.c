#include "sample.h"

#include <stdio.h>
#include <string.h>

#include "proto/page.h"

const struct pm_schema *const sample_page_schemas[] = {
    &pm_page_schema, &pm_region_text_schema, &pm_out_page_schema, &pm_doc_pages_schema, &pm_manifest_schema,
};
const size_t sample_page_schema_count = sizeof sample_page_schemas / sizeof sample_page_schemas[0];

#define LIST_COUNT 2u

static uint64_t number_of(const char *name, uint32_t seed)
{
    uint64_t h = 1469598103934665603u + seed;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h;
}

static const char *text_of(const char *name, uint32_t seed, size_t limit, struct pm_arena *arena)
{
    char text[128];
    int n = snprintf(text, sizeof text, "%s \xc3\xa9\xe2\x82\xac %u", name, seed);
    return pm_arena_text(arena, text, (size_t)n < limit ? (size_t)n : 0);
}

static void fill_list(const struct pm_field *f, struct pm_arena *arena, void *record, uint32_t seed)
{
    uint32_t count = LIST_COUNT;
    size_t size = f->type == PM_FIELD_RECS   ? f->sub->size
                  : f->type == PM_FIELD_STRS ? sizeof(char *)
                                             : sizeof(uint32_t);
    char *items = pm_arena_alloc(arena, count * size);
    for (uint32_t i = 0; i < count; i++) {
        void *item = items + i * size;
        if (f->type == PM_FIELD_RECS)
            sample_fill(f->sub, arena, item, seed + i + 1);
        else if (f->type == PM_FIELD_STRS)
            *(const char **)item = text_of(f->name, i, 100, arena);
        else
            *(uint32_t *)item = (uint32_t)number_of(f->name, seed + i);
    }
    memcpy((char *)record + f->offset, &items, sizeof items);
    memcpy((char *)record + f->count_offset, &count, sizeof count);
}

void sample_fill(const struct pm_schema *schema, struct pm_arena *arena, void *record, uint32_t seed)
{
    for (size_t i = 0; i < schema->field_count; i++) {
        const struct pm_field *f = &schema->fields[i];
        void *p = (char *)record + f->offset;
        uint64_t number = number_of(f->name, seed);
        switch (f->type) {
        case PM_FIELD_U64:
            *(uint64_t *)p = number | 1;
            break;
        case PM_FIELD_I64:
            *(int64_t *)p = -(int64_t)(number >> 1) - 1;
            break;
        case PM_FIELD_U32:
            *(uint32_t *)p = f->limit ? (uint32_t)(1 + number % f->limit) : (uint32_t)number | 1;
            break;
        case PM_FIELD_F32:
            *(float *)p = (float)(number % 1000) + 0.25f;
            break;
        case PM_FIELD_BOOL:
            *(bool *)p = true;
            break;
        case PM_FIELD_STR:
            *(const char **)p = text_of(f->name, seed, f->limit, arena);
            break;
        case PM_FIELD_BIN:
            *(struct pm_bytes *)p = (struct pm_bytes){(const uint8_t *)"\0\xff\x01", 3};
            break;
        case PM_FIELD_REC:
            sample_fill(f->sub, arena, p, seed + 1);
            break;
        case PM_FIELD_RECS:
        case PM_FIELD_STRS:
        case PM_FIELD_U32S:
            fill_list(f, arena, record, seed);
            break;
        case PM_FIELD_F32S:
            for (size_t k = 0; k < f->limit; k++)
                ((float *)p)[k] = (float)k - 0.5f;
            break;
        }
    }
}

static const char *list_difference(const struct pm_field *f, const void *a, const void *b)
{
    uint32_t count, other;
    const char *items_a, *items_b;
    memcpy(&count, (const char *)a + f->count_offset, sizeof count);
    memcpy(&other, (const char *)b + f->count_offset, sizeof other);
    memcpy(&items_a, (const char *)a + f->offset, sizeof items_a);
    memcpy(&items_b, (const char *)b + f->offset, sizeof items_b);
    if (count != other)
        return f->name;
    for (uint32_t i = 0; i < count; i++) {
        if (f->type == PM_FIELD_RECS) {
            const char *name =
                sample_difference(f->sub, items_a + i * f->sub->size, items_b + i * f->sub->size);
            if (name)
                return name;
        } else if (f->type == PM_FIELD_STRS) {
            if (strcmp(((const char *const *)(const void *)items_a)[i],
                       ((const char *const *)(const void *)items_b)[i]))
                return f->name;
        } else if (memcmp(items_a + 4 * i, items_b + 4 * i, 4)) {
            return f->name;
        }
    }
    return NULL;
}

const char *sample_difference(const struct pm_schema *schema, const void *a, const void *b)
{
    static const size_t sizes[] = {
        [PM_FIELD_U64] = 8, [PM_FIELD_I64] = 8, [PM_FIELD_U32] = 4, [PM_FIELD_F32] = 4, [PM_FIELD_BOOL] = 1,
    };
    for (size_t i = 0; i < schema->field_count; i++) {
        const struct pm_field *f = &schema->fields[i];
        const void *p = (const char *)a + f->offset, *q = (const char *)b + f->offset;
        const char *name = NULL;
        bool is_equal = true;
        if (f->type <= PM_FIELD_BOOL) {
            is_equal = !memcmp(p, q, sizes[f->type]);
        } else if (f->type == PM_FIELD_STR) {
            is_equal = !strcmp(*(const char *const *)p, *(const char *const *)q);
        } else if (f->type == PM_FIELD_BIN) {
            const struct pm_bytes *x = p, *y = q;
            is_equal = x->size == y->size && (!x->size || !memcmp(x->data, y->data, x->size));
        } else if (f->type == PM_FIELD_REC) {
            name = sample_difference(f->sub, p, q);
        } else if (f->type == PM_FIELD_F32S) {
            is_equal = !memcmp(p, q, f->limit * sizeof(float));
        } else {
            name = list_difference(f, a, b);
        }
        if (name || !is_equal)
            return name ? name : f->name;
    }
    return NULL;
}
