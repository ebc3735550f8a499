#include "layoutd/fingerprint.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define DOMAIN "pagemill page 1"

/* With its end, so that two texts never run into each other. */
static void add_text(struct pm_hasher *h, const char *text)
{
    text = text ? text : "";
    pm_hasher_add(h, text, strlen(text) + 1);
}

bool pm_page_has_fingerprint(const char *layout_model, const struct pm_msg_lease *lease)
{
    return layout_model && *layout_model && lease->model && *lease->model && !lease->options.again;
}

void pm_page_fingerprint(const struct pm_image *picture, double dpi, const char *layout_model,
                         const struct pm_msg_lease *lease, char out[PM_HASH_HEX + 1])
{
    const struct pm_options *o = &lease->options;
    struct pm_hasher h;
    uint8_t hash[PM_HASH_BYTES];
    char settings[256];
    /* Floats as they would be printed exactly: equal values, equal bytes, on every machine. */
    snprintf(settings, sizeof settings, "%d %d %d %u %a %a %llu %dx%dx%d %a", o->no_orientation, o->no_deskew,
             o->no_images, o->max_tokens, (double)o->temperature, (double)o->repetition_penalty,
             (unsigned long long)o->seed, picture->width_px, picture->height_px, picture->channels, dpi);
    pm_hasher_start(&h);
    add_text(&h, DOMAIN);
    add_text(&h, layout_model);
    add_text(&h, lease->model);
    add_text(&h, o->reader);
    add_text(&h, o->whole);
    add_text(&h, settings);
    for (int y = 0; y < picture->height_px; y++)
        pm_hasher_add(&h, picture->pixels + (size_t)y * picture->stride_bytes,
                      (size_t)picture->width_px * (size_t)picture->channels);
    pm_hasher_finish(&h, hash);
    pm_hash_hex(hash, out);
}
