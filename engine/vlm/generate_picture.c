/* The pictures of the generator: one at a time through the tower, or out of the cache of features. */
#include <string.h>

#include "base/clock.h"
#include "engine/vlm/generate_internal.h"

struct pm_gen_seq *pm_gen_picture_next(const struct pm_generate *g)
{
    if (g->picture_of)
        return g->picture_of;
    for (int i = 0; i < g->count; i++)
        if (g->seqs[i]->images_done < g->seqs[i]->image_count)
            return g->seqs[i];
    return NULL;
}

/* What the tower makes of the sequence's next picture is there. */
static int keep_tokens(struct pm_generate *g, struct pm_gen_seq *s, const float *tokens, int count,
                       struct pm_error *err)
{
    struct pm_gen_image *image = &s->images[s->images_done];
    size_t hidden = (size_t)g->model->text.hidden;
    void *memory;
    if (count != image->count)
        return pm_fail(err, PM_EINTERNAL, "a picture gave %d tokens where %d were expected", count,
                       image->count);
    int rc = pm_alloc_array((size_t)count, hidden * sizeof(float), &memory, err);
    if (rc)
        return rc;
    memcpy(memory, tokens, (size_t)count * hidden * sizeof(float));
    image->embeddings = memory;
    image->image = (struct pm_image){0};
    s->images_done++;
    g->counters.pictures++;
    return 0;
}

/* From the cache, or into the tower. */
static int begin(struct pm_generate *g, struct pm_gen_seq *s, const struct pm_image *resized,
                 struct pm_error *err)
{
    const struct pm_vision_config *v = &g->model->vision;
    if (g->features) {
        size_t values;
        g->picture_key =
            pm_features_key(resized, resized->height_px / v->patch, resized->width_px / v->patch);
        const float *tokens = pm_features_find(g->features, &g->picture_key, &values);
        if (tokens) {
            int rc = keep_tokens(g, s, tokens, (int)(values / (size_t)g->model->text.hidden), err);
            g->counters.pictures_reused += !rc;
            return rc;
        }
    }
    struct pm_patches patches;
    int rc = pm_patches_cut(g->model, resized, &patches, err);
    if (!rc)
        rc = pm_vision_begin(g->vision, &patches, err);
    pm_patches_free(&patches);
    if (!rc)
        g->picture_of = s;
    return rc;
}

static int end(struct pm_generate *g, struct pm_gen_seq *s, struct pm_error *err)
{
    int count;
    const float *tokens = pm_vision_tokens(g->vision, &count);
    g->picture_of = NULL;
    int rc = keep_tokens(g, s, tokens, count, err);
    if (!rc && g->features)
        pm_features_put(g->features, &g->picture_key, tokens, (size_t)count * (size_t)g->model->text.hidden);
    return rc;
}

void pm_gen_picture_slice(struct pm_generate *g, struct pm_gen_seq *s)
{
    struct pm_error error;
    int rc = 0;
    int64_t start_us = pm_clock_us();
    bool is_new = !g->picture_of, is_whole = false;
    g->counters.vision_slices++;
    if (is_new) {
        struct pm_image resized;
        rc = pm_patches_resize(g->model, &s->images[s->images_done].image, &resized, &error);
        if (!rc)
            rc = begin(g, s, &resized, &error);
        pm_image_free(&resized);
    } else if (pm_vision_step(g->vision, g->slice_macs)) {
        rc = end(g, s, &error);
    } else {
        is_whole = true;
    }
    int64_t end_us = pm_gen_seq_spend(s, is_new ? PM_GENERATE_PREPROCESS : PM_GENERATE_VISION, start_us);
    if (is_whole) /* the last slice of a picture has less to do than it may: it tells nothing of speed */
        pm_gen_steps_slice(g, end_us - start_us);
    if (rc)
        pm_gen_seq_fail(s, &error);
}
