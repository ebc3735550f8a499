#include <string.h>

#include "collector/assemble.h"
#include "collector/format.h"
#include "collector/jpeg.h"
#include "proto/sheet.h"

static int load_page(struct pm_blobs *blobs, const char *key, struct pm_arena *arena, struct pm_page *out,
                     struct pm_error *err)
{
    struct pm_blob_map map = {0};
    int rc = pm_blob_map(blobs, key, &map, err);
    if (rc)
        return pm_fail_prefix(err, "page record");
    rc = pm_record_decode(&pm_page_schema, map.data, map.bytes, arena, out, err);
    pm_blob_unmap(&map);
    return rc;
}

static int load_texts(const void *data, size_t bytes, struct pm_arena *arena,
                      struct pm_region_text **texts_out, uint32_t *count_out, struct pm_error *err)
{
    struct pm_page_texts raw = {0};
    int rc = 0;
    if (bytes) /* a page without crops has no payload */
        rc = pm_page_texts_decode(data, bytes, arena, &raw, err);
    *texts_out = pm_arena_alloc(arena, ((size_t)raw.text_count + 1) * sizeof **texts_out);
    *count_out = raw.text_count;
    for (uint32_t i = 0; !rc && i < raw.text_count; i++) {
        rc = pm_record_decode(&pm_region_text_schema, raw.texts[i].data, raw.texts[i].size, arena,
                              &(*texts_out)[i], err);
        if (rc)
            pm_fail_prefix(err, "text %u", i);
    }
    return rc;
}

static int store_picture(struct pm_blobs *blobs, const struct pm_sheet *sheet, uint32_t crop, float dpi,
                         char *key_out, struct pm_error *err)
{
    struct pm_sheet_crop c;
    struct pm_buf file = {0};
    int rc = pm_sheet_crop(sheet, crop, &c, err);
    if (!rc)
        rc = pm_jpeg_encode(&c.image, dpi, &file, err);
    if (!rc)
        rc = pm_blob_put(blobs, PM_BLOB_DISK, file.data, file.size, key_out, err);
    pm_buf_free(&file);
    return rc;
}

/* A full or failing disk stops the task, to be tried again; a picture that cannot be stored as it is leaves
 * its reason in the region. */
static bool is_systemic(int code)
{
    return code == PM_ENOSPC || code == PM_EIO || code == PM_ENOMEM || code == PM_EDENIED;
}

static int store_pictures(struct pm_blobs *blobs, const struct pm_page *page, const struct pm_sheet *sheet,
                          struct pm_arena *arena, struct pm_out_page *out, struct pm_assembled *result,
                          struct pm_error *err)
{
    uint32_t pictures = 0;
    for (uint32_t i = 0; i < page->crop_count; i++)
        pictures += page->crops[i].task == PM_SHEET_PICTURE;
    result->blobs = pm_arena_alloc(arena, ((size_t)pictures + 1) * sizeof *result->blobs);
    for (uint32_t i = 0; i < page->crop_count; i++) {
        struct pm_out_region *r = &out->regions[page->crops[i].region];
        if (page->crops[i].task != PM_SHEET_PICTURE || *r->image_blob)
            continue;
        char key[PM_BLOB_KEY_SIZE];
        struct pm_error why = {0};
        int rc = store_picture(blobs, sheet, i, page->dpi, key, &why);
        if (rc && is_systemic(rc)) {
            if (err)
                *err = why;
            return pm_fail_prefix(err, "picture %u of page %u", i, page->page);
        }
        if (rc) {
            r->error_code = pm_err_name(rc);
            r->error_text = pm_arena_text(arena, why.text, strlen(why.text));
            continue;
        }
        r->image_blob = pm_arena_text(arena, key, strlen(key));
        bool is_known = false;
        for (uint32_t k = 0; k < result->blob_count && !is_known; k++)
            is_known = !strcmp(result->blobs[k], key);
        if (!is_known)
            result->blobs[result->blob_count++] = r->image_blob;
    }
    return 0;
}

int pm_assemble_page(struct pm_blobs *blobs, const char *page_blob, const char *sheet_blob, const void *texts,
                     size_t text_bytes, const struct pm_options *options, struct pm_arena *arena,
                     struct pm_assembled *out, struct pm_error *err)
{
    *out = (struct pm_assembled){0};
    pm_phases_begin(&out->phases);
    struct pm_page page = {0};
    struct pm_region_text *decoded;
    uint32_t count;
    struct pm_out_page formatted;
    struct pm_sheet sheet = {0};
    struct pm_buf record = {0};
    int rc = load_page(blobs, page_blob, arena, &page, err);
    if (!rc)
        rc = load_texts(texts, text_bytes, arena, &decoded, &count, err);
    if (!rc)
        rc = pm_format_page(&page, decoded, count, arena, &formatted, err);
    if (rc)
        return rc;
    pm_phases_end(&out->phases, "assemble");
    bool has_picture = false;
    for (uint32_t i = 0; i < page.crop_count; i++)
        has_picture |= page.crops[i].task == PM_SHEET_PICTURE;
    if (has_picture && !options->no_images) {
        rc = pm_sheet_open(blobs, sheet_blob ? sheet_blob : "", &sheet, err);
        if (rc)
            return pm_fail_prefix(err, "crops of page %u", page.page);
        rc = store_pictures(blobs, &page, &sheet, arena, &formatted, out, err);
        pm_sheet_close(&sheet);
        pm_phases_end(&out->phases, "pictures");
    }
    if (!rc) {
        pm_record_encode(&pm_out_page_schema, &formatted, &record);
        rc = pm_blob_put(blobs, PM_BLOB_DISK, record.data, record.size, out->blob, err);
    }
    pm_buf_free(&record);
    for (uint32_t i = 0; i < formatted.region_count; i++)
        out->failed_regions += *formatted.regions[i].error_code != 0;
    pm_phases_end(&out->phases, "write");
    return rc;
}
