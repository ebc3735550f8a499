/* decode-dump PROGRAM FILE [PASSWORD [DPI [OUT-PREFIX]]]: decodes every page and prints a line each, with
 * times; with a prefix writes PGM or PPM files. For looking at things by hand. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "layoutd/decode/client.h"

static void write_pnm(const char *prefix, int page, const struct pm_image *image)
{
    char name[512];
    snprintf(name, sizeof name, "%s-%d.%s", prefix, page + 1, image->channels == 1 ? "pgm" : "ppm");
    FILE *f = fopen(name, "wb");
    if (!f)
        return;
    fprintf(f, "P%d %d %d 255\n", image->channels == 1 ? 5 : 6, image->width_px, image->height_px);
    for (int y = 0; y < image->height_px; y++) {
        const uint8_t *row = image->pixels + image->stride_bytes * (size_t)y;
        if (image->channels == 1)
            fwrite(row, 1, (size_t)image->width_px, f);
        else
            for (int x = 0; x < image->width_px; x++) {
                fputc(row[3 * x + 2], f);
                fputc(row[3 * x + 1], f);
                fputc(row[3 * x], f);
            }
    }
    fclose(f);
}

int main(int argc, char **argv)
{
    struct pm_decoder *decoder = NULL;
    struct pm_error err = {0};
    if (argc < 3)
        return 2;
    int64_t start_us = pm_clock_us();
    if (pm_decode_start_path(argv[1], argv[2], argc > 3 && *argv[3] ? argv[3] : NULL, NULL, &decoder, &err)) {
        printf("%s: %s (%s)\n", argv[2], err.text, pm_err_name(err.code));
        return 1;
    }
    const struct pm_decode_info *info = pm_decode_info(decoder);
    printf("%s: %s, %d pages, title \"%s\", open %.1f ms\n", argv[2], pm_format_name(info->format),
           info->page_count, info->title, (double)(pm_clock_us() - start_us) / 1e3);
    for (int page = 0; page < info->page_count; page++) {
        struct pm_image image;
        struct pm_decode_size size = {0};
        double dpi = argc > 4 ? atof(argv[4]) : 0, dpi_out;
        if (pm_decode_page_size(decoder, page, dpi, &size, &err))
            printf("  page %d size: %s (%s)\n", page + 1, err.text, pm_err_name(err.code));
        start_us = pm_clock_us();
        if (pm_decode_render(decoder, page, dpi, &image, &dpi_out, &err)) {
            printf("  page %d: %s (%s)\n", page + 1, err.text, pm_err_name(err.code));
            continue;
        }
        printf("  page %d: %d x %d (said %d x %d, %.1f x %.1f pt), %d channels, %.0f dpi, %.1f ms %s\n",
               page + 1, image.width_px, image.height_px, size.width_px, size.height_px, size.width_pt,
               size.height_pt, image.channels, dpi_out, (double)(pm_clock_us() - start_us) / 1e3,
               pm_decode_warning(decoder));
        if (argc > 5)
            write_pnm(argv[5], page, &image);
        pm_decode_image_free(&image);
    }
    pm_decode_stop(&decoder);
    return 0;
}
