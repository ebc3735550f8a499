/* Tasks on blobs: page records and texts in, files out; twice the same bytes, bounded memory, hostile input.
 */
#include "fixture.h"

#include <jpeglib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "collector/assemble.h"
#include "collector/collector.h"
#include "collector/jpeg.h"

static const struct pm_options md_json = {.formats = "md,json", .stem = "doc", .drop = ""};

/* ---- JPEG ---- */

static void fill_colour(uint8_t *pixels, int width, int height, const uint8_t bgr[3])
{
    for (int i = 0; i < width * height; i++)
        memcpy(pixels + 3 * i, bgr, 3);
}

static void decode_first_pixel(const uint8_t *data, size_t size, int *width, int *height, uint8_t rgb[3])
{
    struct jpeg_decompress_struct d;
    struct jpeg_error_mgr errors;
    d.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&d);
    jpeg_mem_src(&d, data, size);
    jpeg_read_header(&d, TRUE);
    d.out_color_space = JCS_RGB;
    jpeg_start_decompress(&d);
    *width = (int)d.output_width;
    *height = (int)d.output_height;
    uint8_t *row = malloc((size_t)d.output_width * 3);
    jpeg_read_scanlines(&d, &row, 1);
    memcpy(rgb, row, 3);
    free(row);
    jpeg_abort_decompress(&d);
    jpeg_destroy_decompress(&d);
}

static void test_jpeg(void **state)
{
    static const uint8_t orange_bgr[3] = {20, 120, 230};
    uint8_t pixels[3 * 33 * 17], rgb[3];
    struct pm_image image = {
        .pixels = pixels, .width_px = 33, .height_px = 17, .channels = 3, .stride_bytes = 99};
    struct pm_buf a = {0}, b = {0};
    struct pm_error err = {0};
    int width, height;
    (void)state;
    fill_colour(pixels, 33, 17, orange_bgr);
    assert_int_equal(pm_jpeg_encode(&image, 200, &a, &err), 0);
    assert_int_equal(pm_jpeg_encode(&image, 200, &b, &err), 0);
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    decode_first_pixel(a.data, a.size, &width, &height, rgb);
    assert_int_equal(width, 33);
    assert_int_equal(height, 17);
    for (int c = 0; c < 3; c++)
        assert_in_range(rgb[c] + 3, orange_bgr[2 - c], orange_bgr[2 - c] + 6);
    assert_memory_equal(a.data + 6, "JFIF", 4);
    assert_int_equal(a.data[13], 1); /* dots per inch */
    assert_int_equal(a.data[14] * 256 + a.data[15], 200);
    a.size = 0;
    image.channels = 1; /* grey, with a stride */
    assert_int_equal(pm_jpeg_encode(&image, 0, &a, &err), 0);
    decode_first_pixel(a.data, a.size, &width, &height, rgb);
    assert_int_equal(rgb[0], rgb[1]);
    image.width_px = 65501;
    assert_int_equal(pm_jpeg_encode(&image, 0, &a, &err), PM_ELIMIT);
    image.width_px = 0;
    assert_int_equal(pm_jpeg_encode(&image, 0, &a, &err), PM_EINVAL);
    pm_buf_free(&a);
    pm_buf_free(&b);
}

/* ---- a page task ---- */

struct lease {
    char page[PM_BLOB_KEY_SIZE], sheet[PM_BLOB_KEY_SIZE];
    struct pm_buf payload;
};

/* Puts page record and sheet into the store and packs the texts. */
static void make_lease(struct store *s, const struct drawn *d, struct lease *out)
{
    static uint8_t pixels[3 * 40 * 30];
    struct pm_sheet_crop *crops = pm_xalloc((d->page.crop_count + 1) * sizeof *crops);
    struct pm_buf record = {0};
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 7);
    for (uint32_t i = 0; i < d->page.crop_count; i++) {
        crops[i].image = (struct pm_image){
            .pixels = pixels, .width_px = 40, .height_px = 30, .channels = 3, .stride_bytes = 120};
        crops[i].task = d->page.crops[i].task;
    }
    memset(out, 0, sizeof *out);
    assert_int_equal(
        pm_sheet_write(s->blobs, 1, 1, crops, d->page.crop_count, out->sheet, &(uint64_t){0}, NULL), 0);
    pm_record_encode(&pm_page_schema, &d->page, &record);
    assert_int_equal(pm_blob_put(s->blobs, PM_BLOB_DISK, record.data, record.size, out->page, NULL), 0);
    pm_buf_free(&record);
    struct pm_page_texts texts = {.texts = pm_xalloc((d->text_count + 1) * sizeof *texts.texts),
                                  .text_count = d->text_count};
    struct pm_buf *encoded = pm_xalloc((d->text_count + 1) * sizeof *encoded);
    for (uint32_t i = 0; i < d->text_count; i++) {
        pm_record_encode(&pm_region_text_schema, &d->texts[i], &encoded[i]);
        texts.texts[i] = (struct pm_bytes){encoded[i].data, encoded[i].size};
    }
    pm_page_texts_encode(&texts, &out->payload);
    for (uint32_t i = 0; i < d->text_count; i++)
        pm_buf_free(&encoded[i]);
    free(encoded);
    free(texts.texts);
    free(crops);
}

static void draw_sample(struct drawn *d)
{
    drawn_init(d);
    drawn_region(d, PM_LABEL_DOC_TITLE, 0, 0, "A Title");
    drawn_region(d, PM_LABEL_TEXT, 0, 100, "Text in infor-\nmative lines.");
    drawn_region(d, PM_LABEL_IMAGE, 0, 300, "");
    drawn_crop(d, 2, 0, 0, 300, 40, 330, NULL);
    drawn_region(d, PM_LABEL_NUMBER, 0, 900, "12");
}

static int do_page(struct store *s, const struct lease *l, const struct pm_options *options,
                   struct pm_arena *arena, struct pm_msg_result *result, struct pm_error *err)
{
    struct pm_msg_lease lease = {.kind = PM_KIND_ASSEMBLE_PAGE, .input = l->page, .sheet = l->sheet};
    lease.options = *options;
    return pm_collector_do(s->blobs, &lease, (struct pm_bytes){l->payload.data, l->payload.size}, NULL, NULL,
                           arena, result, err);
}

static int do_document(struct store *s, const struct pm_doc_pages *pages, const struct pm_options *options,
                       struct pm_arena *arena, struct pm_manifest *manifest, struct pm_msg_result *result,
                       struct pm_error *err)
{
    struct pm_buf payload = {0};
    struct pm_msg_lease lease = {.kind = PM_KIND_ASSEMBLE_DOC};
    lease.options = *options;
    pm_record_encode(&pm_doc_pages_schema, pages, &payload);
    int rc = pm_collector_do(s->blobs, &lease, (struct pm_bytes){payload.data, payload.size}, NULL, NULL,
                             arena, result, err);
    pm_buf_free(&payload);
    if (!rc) {
        assert_int_equal(result->phase_count, 2);
        assert_string_equal(result->phases[0].name, "assemble");
        assert_string_equal(result->phases[1].name, "write");
    }
    if (!rc)
        rc = pm_record_decode(&pm_manifest_schema, result->manifest.data, result->manifest.size, arena,
                              manifest, err);
    return rc;
}

static bool lists(const struct pm_msg_result *r, const char *key)
{
    unsigned found = 0;
    for (uint32_t i = 0; i < r->blob_count; i++)
        found += !strcmp(r->blobs[i], key);
    assert_true(found < 2);
    return found;
}

static void test_page_and_document(void **state)
{
    struct store s;
    struct drawn d;
    struct lease l;
    struct pm_arena arena = {0};
    struct pm_msg_result page, doc, again;
    struct pm_manifest m;
    struct pm_error err = {0};
    (void)state;
    store_open(&s);
    draw_sample(&d);
    make_lease(&s, &d, &l);
    assert_int_equal(do_page(&s, &l, &md_json, &arena, &page, &err), 0);
    assert_true(pm_blob_is_key(page.blob) && page.blob[0] == 'd');
    assert_int_equal(page.failed_regions, 0);
    assert_int_equal(page.blob_count, 1); /* the picture */
    assert_true(pm_blob_exists(s.blobs, page.blobs[0], NULL));

    struct pm_doc_page list[] = {
        {1, page.blob, "", ""}, {2, "", "crash", "two workers died"}, {3, page.blob, "", ""}};
    struct pm_doc_pages pages = {list, 3};
    assert_int_equal(do_document(&s, &pages, &md_json, &arena, &m, &doc, &err), 0);
    assert_int_equal(m.file_count, 4);
    assert_string_equal(m.files[0].name, "doc.md");
    assert_string_equal(m.files[1].name, "doc.json");
    assert_string_equal(m.files[2].name, "imgs/cropped_page0_idx0.jpg");
    assert_string_equal(m.files[3].name, "imgs/cropped_page2_idx1.jpg");
    assert_int_equal(m.pages, 3);
    assert_int_equal(m.pages_failed, 1);
    assert_int_equal(m.regions, 8);
    assert_int_equal(m.regions_failed, 0);
    assert_float_equal(m.confidence, 0.5, 1e-6);
    for (uint32_t i = 0; i < m.file_count; i++) {
        size_t bytes;
        char *text = store_text(&s, m.files[i].blob, &bytes);
        assert_int_equal(bytes, m.files[i].bytes);
        assert_true(lists(&doc, m.files[i].blob));
        if (i == 0)
            assert_string_equal(text, "# A Title\n\nText in informative lines.\n\n"
                                      "![Image 0-0](imgs/cropped_page0_idx0.jpg)\n\n12\n\n"
                                      "<!-- page 2: crash: two workers died -->\n"
                                      "[unreadable page 2: two workers died]\n\n"
                                      "# A Title\n\nText in informative lines.\n\n"
                                      "![Image 2-1](imgs/cropped_page2_idx1.jpg)\n\n12\n");
        free(text);
    }
    assert_int_equal(doc.blob_count, 3); /* md, json, and one picture that stands twice */

    /* again: the same blobs, byte for byte */
    struct pm_msg_result page2;
    assert_int_equal(do_page(&s, &l, &md_json, &arena, &page2, &err), 0);
    assert_string_equal(page2.blob, page.blob);
    assert_int_equal(do_document(&s, &pages, &md_json, &arena, &m, &again, &err), 0);
    assert_int_equal(again.manifest.size, doc.manifest.size);
    assert_memory_equal(again.manifest.data, doc.manifest.data, doc.manifest.size);
    pm_buf_free(&l.payload);
    pm_arena_free(&arena);
    drawn_free(&d);
    store_close(&s);
}

static char *document_of(struct store *s, const char *page, const struct pm_options *options,
                         const char *suffix)
{
    struct pm_arena arena = {0};
    struct pm_msg_result doc;
    struct pm_manifest m;
    struct pm_error err = {0};
    struct pm_doc_page list[] = {{1, page, "", ""}};
    struct pm_doc_pages pages = {list, 1};
    char *text = NULL;
    if (do_document(s, &pages, options, &arena, &m, &doc, &err))
        fail_msg("%s", err.text);
    for (uint32_t i = 0; i < m.file_count; i++)
        if (strstr(m.files[i].name, suffix))
            text = store_text(s, m.files[i].blob, NULL);
    pm_arena_free(&arena);
    return text;
}

static void test_options(void **state)
{
    struct store s;
    struct drawn d;
    struct lease l;
    struct pm_arena arena = {0};
    struct pm_msg_result page, doc;
    struct pm_manifest m;
    struct pm_error err = {0};
    (void)state;
    store_open(&s);
    draw_sample(&d);
    make_lease(&s, &d, &l);
    assert_int_equal(do_page(&s, &l, &md_json, &arena, &page, &err), 0);

    struct pm_options o = {.formats = "txt, md", .stem = "../a/b", .drop = "number, image"};
    char *text = document_of(&s, page.blob, &o, ".txt");
    assert_string_equal(text, "A Title\n\nText in informative lines.\n");
    free(text);
    assert_null(document_of(&s, page.blob, &o, ".json"));
    assert_null(document_of(&s, page.blob, &o, ".jpg"));
    assert_null(document_of(&s, page.blob, &o, "/"));
    text =
        document_of(&s, page.blob, &(struct pm_options){.formats = "", .stem = "", .drop = ""}, "result.md");
    assert_non_null(text);
    free(text);
    text = document_of(&s, page.blob, &(struct pm_options){.formats = "json", .drop = "number", .stem = "x"},
                       "x.json");
    assert_null(strstr(text, "\"native_label\": \"number\""));
    assert_non_null(strstr(text, "\"native_label\": \"image\""));
    free(text);
    text = document_of(&s, page.blob, &(struct pm_options){.formats = "md", .no_images = true, .stem = "x"},
                       ".md");
    assert_null(strstr(text, "!["));
    free(text);

    struct pm_doc_pages none = {0};
    o.formats = "md,docx";
    assert_int_equal(do_document(&s, &none, &o, &arena, &m, &doc, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, "docx"));
    assert_non_null(strstr(err.text, "md, json, txt"));
    o.formats = "md";
    o.drop = "number,nonsense";
    assert_int_equal(do_document(&s, &none, &o, &arena, &m, &doc, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, "nonsense"));
    assert_true(pm_collector_is_final(PM_EINVAL));

    /* no pictures wanted: the sheet is not even looked at */
    struct pm_options bare = md_json;
    bare.no_images = true;
    strcpy(l.sheet, "");
    assert_int_equal(do_page(&s, &l, &bare, &arena, &page, &err), 0);
    assert_int_equal(page.blob_count, 0);
    assert_true(do_page(&s, &l, &md_json, &arena, &page, &err) < 0);
    pm_buf_free(&l.payload);
    pm_arena_free(&arena);
    drawn_free(&d);
    store_close(&s);
}

/* Payloads cut at every byte and with every byte changed: an error or a result, never a fault. */
static void test_hostile_payloads(void **state)
{
    struct store s;
    struct drawn d;
    struct lease l;
    struct pm_arena arena = {0};
    struct pm_msg_result r;
    struct pm_error err = {0};
    unsigned refused = 0;
    (void)state;
    store_open(&s);
    draw_sample(&d);
    make_lease(&s, &d, &l);
    size_t size = l.payload.size;
    uint8_t *whole = pm_xalloc(size);
    memcpy(whole, l.payload.data, size);
    for (size_t cut = 1; cut < size; cut++) {
        struct lease part = l;
        part.payload.data = malloc(cut); /* exact size, for the sanitizer */
        memcpy(part.payload.data, whole, cut);
        part.payload.size = cut;
        assert_true(do_page(&s, &part, &md_json, &arena, &r, &err) < 0);
        assert_true(pm_collector_is_final(err.code));
        free(part.payload.data);
        pm_arena_clear(&arena);
    }
    for (size_t at = 0; at < size; at++) {
        for (int k = 0; k < 2; k++) {
            memcpy(l.payload.data, whole, size);
            l.payload.data[at] = (uint8_t)(whole[at] ^ (k ? 0x01 : 0xFF));
            refused += do_page(&s, &l, &md_json, &arena, &r, &err) < 0;
            pm_arena_clear(&arena);
        }
    }
    assert_true(refused > size / 2);
    /* lengths that promise what is not there */
    static const uint8_t lies[][6] = {
        {0xDD, 0xFF, 0xFF, 0xFF, 0xFF}, {0x91, 0xC6, 0xFF, 0xFF, 0xFF, 0xFF}, {0xC0}};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        memcpy(l.payload.data, lies[i], 6);
        l.payload.size = 6;
        assert_true(do_page(&s, &l, &md_json, &arena, &r, &err) < 0);
    }
    struct pm_msg_lease doc = {.kind = PM_KIND_ASSEMBLE_DOC, .options = md_json};
    assert_int_equal(
        pm_collector_do(s.blobs, &doc, (struct pm_bytes){whole, size}, NULL, NULL, &arena, &r, &err),
        PM_EPROTO);
    doc.kind = PM_KIND_REGION;
    assert_int_equal(
        pm_collector_do(s.blobs, &doc, (struct pm_bytes){whole, size}, NULL, NULL, &arena, &r, &err),
        PM_EPROTO);
    free(whole);
    pm_buf_free(&l.payload);
    pm_arena_free(&arena);
    drawn_free(&d);
    store_close(&s);
}

static void test_bad_blobs(void **state)
{
    struct store s;
    struct pm_arena arena = {0};
    struct pm_msg_result r;
    struct pm_manifest m;
    struct pm_error err = {0};
    char junk[PM_BLOB_KEY_SIZE], absent[PM_BLOB_KEY_SIZE];
    (void)state;
    store_open(&s);
    assert_int_equal(pm_blob_put(s.blobs, PM_BLOB_DISK, "junk", 4, junk, NULL), 0);
    memset(absent, 'a', sizeof absent);
    absent[0] = 'd';
    absent[PM_BLOB_KEY_SIZE - 1] = 0;
    static const char *const bad_keys[] = {"", "../../etc/passwd", "d123"};
    for (size_t i = 0; i < 3; i++) {
        struct pm_msg_lease lease = {.kind = PM_KIND_ASSEMBLE_PAGE, .input = bad_keys[i], .options = md_json};
        assert_true(pm_collector_do(s.blobs, &lease, (struct pm_bytes){0}, NULL, NULL, &arena, &r, &err) < 0);
    }
    struct pm_msg_lease lease = {.kind = PM_KIND_ASSEMBLE_PAGE, .input = absent, .options = md_json};
    assert_int_equal(pm_collector_do(s.blobs, &lease, (struct pm_bytes){0}, NULL, NULL, &arena, &r, &err),
                     PM_ENOTFOUND);
    assert_false(pm_collector_is_final(err.code)); /* it may come back */
    lease.input = junk;
    assert_int_equal(pm_collector_do(s.blobs, &lease, (struct pm_bytes){0}, NULL, NULL, &arena, &r, &err),
                     PM_EPROTO);
    assert_true(pm_collector_is_final(err.code));
    /* a page of the document that is damaged says so; one that is missing stops the task */
    struct pm_doc_page list[] = {{1, junk, "", ""}};
    struct pm_doc_pages pages = {list, 1};
    assert_int_equal(do_document(&s, &pages, &md_json, &arena, &m, &r, &err), 0);
    assert_int_equal(m.pages_failed, 1);
    list[0].blob = absent;
    assert_int_equal(do_document(&s, &pages, &md_json, &arena, &m, &r, &err), PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "page 1"));
    /* a picture whose blob is gone leaves its reason */
    struct pm_out_region region = {.label = PM_LABEL_IMAGE, .content = "", .image_blob = absent};
    region.error_code = region.error_text = "";
    struct pm_out_page page = {
        .page = 1, .regions = &region, .region_count = 1, .error_code = "", .error_text = ""};
    char key[PM_BLOB_KEY_SIZE];
    store_page(&s, &page, key);
    char *text = document_of(&s, key, &md_json, ".md");
    assert_non_null(strstr(text, "[unreadable region: the picture is gone"));
    free(text);
    pm_arena_free(&arena);
    store_close(&s);
}

static int stop_at(void *ctx, uint32_t permille, struct pm_error *err)
{
    unsigned *calls = ctx;
    assert_true(permille <= 1000);
    return ++*calls == 3 ? pm_fail(err, PM_ECANCELLED, "enough") : 0;
}

static long resident_kb(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_int_equal(fscanf(f, "%*d %ld", &pages), 1);
    fclose(f);
    return pages * (long)(sysconf(_SC_PAGESIZE) / 1024);
}

/* 2,000 pages of 60 lines: the files are large, the process is not; a tick can stop it. */
static void test_many_pages(void **state)
{
    enum { PAGES = 2000, LINES = 60, WORDS = 8 };
    struct store s;
    struct drawn d;
    struct pm_arena arena = {0};
    struct pm_word words[WORDS];
    char key[PM_BLOB_KEY_SIZE];
    struct pm_error err = {0};
    (void)state;
    store_open(&s);
    drawn_init(&d);
    for (int r = 0; r < LINES / 6; r++)
        drawn_region(
            &d, PM_LABEL_TEXT, 0, (float)r * 200,
            "seven words in a line of text\nseven words in a line of text\nseven words in a line of text\n"
            "seven words in a line of text\nseven words in a line of text\nseven words in a line of text");
    for (uint32_t i = 0; i < WORDS; i++)
        words[i] = (struct pm_word){i * 3, i * 3 + 2, (float)i / 8, (float)(i + 1) / 8, 1};
    for (uint32_t i = 0; i < d.text_count; i++) {
        d.texts[i].words = words;
        d.texts[i].word_count = WORDS;
    }
    struct pm_out_page page = drawn_format(&d);
    store_page(&s, &page, key);
    struct pm_doc_page *list = pm_xalloc(PAGES * sizeof *list);
    for (uint32_t i = 0; i < PAGES; i++)
        list[i] = (struct pm_doc_page){i + 1, key, "", ""};
    struct pm_doc_pages pages = {list, PAGES};
    struct pm_assembled out;
    unsigned calls = 0;
    assert_int_equal(pm_assemble_document(s.blobs, &pages, &md_json, stop_at, &calls, &arena, &out, &err),
                     PM_ECANCELLED);
    assert_int_equal(calls, 3);
    long before = resident_kb();
    assert_int_equal(pm_assemble_document(s.blobs, &pages, &md_json, NULL, NULL, &arena, &out, &err), 0);
    assert_int_equal(out.manifest.pages, PAGES);
    assert_true(out.manifest.files[1].bytes > (uint64_t)PAGES * LINES * WORDS * 50);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
#ifndef PM_SANITIZED
    assert_in_range(usage.ru_maxrss - before, 0, 32 * 1024); /* KiB, beside 50 MB of JSON */
#else
    (void)before;
#endif
    free(list);
    pm_arena_free(&arena);
    drawn_free(&d);
    store_close(&s);
}

/* More pictures than a message can list: the rest is left out visibly. */
static void test_many_pictures(void **state)
{
    enum { PER_PAGE = 1000, PAGES = 17 };
    struct store s;
    struct pm_arena arena = {0};
    struct pm_msg_result r;
    struct pm_manifest m;
    struct pm_error err = {0};
    char picture[PM_BLOB_KEY_SIZE], key[PM_BLOB_KEY_SIZE];
    (void)state;
    store_open(&s);
    assert_int_equal(pm_blob_put(s.blobs, PM_BLOB_DISK, "jpeg", 4, picture, NULL), 0);
    struct pm_out_region *regions = pm_xalloc(PER_PAGE * sizeof *regions);
    for (int i = 0; i < PER_PAGE; i++)
        regions[i] = (struct pm_out_region){.label = PM_LABEL_IMAGE,
                                            .content = "",
                                            .image_blob = picture,
                                            .error_code = "",
                                            .error_text = ""};
    struct pm_out_page page = {
        .page = 1, .regions = regions, .region_count = PER_PAGE, .error_code = "", .error_text = ""};
    store_page(&s, &page, key);
    struct pm_doc_page list[PAGES];
    for (uint32_t i = 0; i < PAGES; i++)
        list[i] = (struct pm_doc_page){i + 1, key, "", ""};
    struct pm_doc_pages pages = {list, PAGES};
    assert_int_equal(do_document(&s, &pages, &md_json, &arena, &m, &r, &err), 0);
    assert_int_equal(m.file_count, PM_DOCUMENT_PICTURES + 2);
    assert_int_equal(m.regions_failed, PER_PAGE * PAGES - PM_DOCUMENT_PICTURES);
    assert_true(r.manifest.size < PM_LIMIT_INNER_RECORD);
    assert_string_equal(m.files[m.file_count - 1].name, "imgs/cropped_page15_idx15999.jpg");
    free(regions);
    pm_arena_free(&arena);
    store_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jpeg),          cmocka_unit_test(test_page_and_document),
        cmocka_unit_test(test_options),       cmocka_unit_test(test_hostile_payloads),
        cmocka_unit_test(test_bad_blobs),     cmocka_unit_test(test_many_pages),
        cmocka_unit_test(test_many_pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
