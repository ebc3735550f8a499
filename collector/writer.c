#include "collector/writer.h"

#include <string.h>

#include "base/fs.h"

#define FLUSH_BYTES (256u * 1024)

static const struct pm_writer *const writers[] = {&pm_writer_md, &pm_writer_json, &pm_writer_txt};

const struct pm_writer *pm_writer_find(const char *format, size_t bytes)
{
    for (size_t i = 0; i < sizeof writers / sizeof *writers; i++)
        if (strlen(writers[i]->format) == bytes && !memcmp(writers[i]->format, format, bytes))
            return writers[i];
    return NULL;
}

const char *pm_writer_formats(void)
{
    return "md, json, txt";
}

static void drain(struct pm_sink *s)
{
    if (!s->err.code && s->buf.size)
        pm_fs_write_all(s->fd, s->buf.data, s->buf.size, &s->err);
    s->buf.size = 0;
}

void pm_sink_put(struct pm_sink *s, const void *data, size_t bytes)
{
    s->bytes += bytes;
    if (s->err.code)
        return;
    pm_buf_append(&s->buf, data, bytes);
    if (s->buf.size >= FLUSH_BYTES)
        drain(s);
}

void pm_sink_text(struct pm_sink *s, const char *text)
{
    pm_sink_put(s, text, strlen(text));
}

int pm_sink_finish(struct pm_sink *s, struct pm_error *err)
{
    drain(s);
    if (s->err.code && err)
        *err = s->err;
    return s->err.code;
}

void pm_sink_free(struct pm_sink *s)
{
    pm_buf_free(&s->buf);
}
