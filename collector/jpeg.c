#include "collector/jpeg.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

#define LARGEST_SIDE_PX 65500

struct failure {
    struct jpeg_error_mgr manager; /* first: the library gives back a pointer to it */
    jmp_buf back;
    char text[JMSG_LENGTH_MAX];
};

static void fail(j_common_ptr info)
{
    struct failure *f = (struct failure *)info->err;
    info->err->format_message(info, f->text);
    longjmp(f->back, 1);
}

static void say_nothing(j_common_ptr info, int level)
{
    (void)info;
    (void)level;
}

/* Everything that lives over the longjmp is the caller's, so no local can be lost. */
static int encode(struct jpeg_compress_struct *c, struct failure *f, const struct pm_image *image, float dpi,
                  unsigned char **data, unsigned long *size)
{
    if (setjmp(f->back))
        return -1;
    jpeg_create_compress(c);
    jpeg_mem_dest(c, data, size);
    c->image_width = (JDIMENSION)image->width_px;
    c->image_height = (JDIMENSION)image->height_px;
    c->input_components = image->channels;
    c->in_color_space = image->channels == 3 ? JCS_EXT_BGR : JCS_GRAYSCALE;
    jpeg_set_defaults(c);
    jpeg_set_quality(c, PM_JPEG_QUALITY, TRUE);
    c->comp_info[0].h_samp_factor = c->comp_info[0].v_samp_factor = 1;
    c->dct_method = JDCT_ISLOW;
    if (dpi >= 1 && dpi <= 65535) {
        c->density_unit = 1;
        c->X_density = c->Y_density = (UINT16)(dpi + 0.5f);
    }
    jpeg_start_compress(c, TRUE);
    while (c->next_scanline < c->image_height) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(image->pixels + (size_t)c->next_scanline * image->stride_bytes);
        jpeg_write_scanlines(c, &row, 1);
    }
    jpeg_finish_compress(c);
    return 0;
}

int pm_jpeg_encode(const struct pm_image *image, float dpi, struct pm_buf *out, struct pm_error *err)
{
    if (image->width_px < 1 || image->height_px < 1 || (image->channels != 1 && image->channels != 3))
        return pm_fail(err, PM_EINVAL, "a picture of %d x %d pixels in %d channels cannot be stored as JPEG",
                       image->width_px, image->height_px, image->channels);
    if (image->width_px > LARGEST_SIDE_PX || image->height_px > LARGEST_SIDE_PX)
        return pm_fail(err, PM_ELIMIT, "a picture of %d x %d pixels is too large for JPEG (%d at most)",
                       image->width_px, image->height_px, LARGEST_SIDE_PX);
    struct jpeg_compress_struct c = {0};
    struct failure f = {0};
    unsigned char *data = NULL;
    unsigned long size = 0;
    c.err = jpeg_std_error(&f.manager);
    f.manager.error_exit = fail;
    f.manager.emit_message = say_nothing;
    int rc = encode(&c, &f, image, dpi, &data, &size);
    if (rc)
        rc = pm_fail(err, PM_EINTERNAL, "cannot store a picture as JPEG: %s", f.text);
    else
        pm_buf_append(out, data, size);
    jpeg_destroy_compress(&c);
    free(data);
    return rc;
}
