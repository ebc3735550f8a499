/* A reader: region pictures in, text out, step by step. The one interface between worker/ and every model
 * family.
 *
 * A worker opens a reader by the manifest of a model folder (pagemill.json names the family), admits requests
 * while there is room, and calls pm_reader_step until nothing is running. Each step is short (about 100 ms)
 * so that the caller can look at cancels and deadlines between steps. A request's result never depends on
 * what else is admitted.
 *
 * Ownership: the reader copies nothing of a request's pixels: they must stay until its result event or its
 * cancel. Events are valid until the next call on the reader. Threads: one owner thread. Errors: PM_ENOTFOUND
 * (no such model), PM_EFORMAT (damaged weights), PM_ENOMEM, PM_EINVAL (a setting of a request and its range).
 * Nothing outside engine/ knows which family runs.
 */
#ifndef PM_ENGINE_READER_H
#define PM_ENGINE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/image.h"

enum pm_task { PM_TASK_TEXT, PM_TASK_TABLE, PM_TASK_FORMULA };
enum pm_region_kind { PM_REGION_LINE, PM_REGION_BLOCK }; /* what a model wants as one picture */

enum pm_finish {
    PM_FINISH_STOP,      /* the model ended the text itself */
    PM_FINISH_LENGTH,    /* max_tokens reached, or the text repeated itself without end */
    PM_FINISH_EMPTY,     /* nothing legible: text is "" */
    PM_FINISH_CANCELLED, /* pm_reader_cancel */
    PM_FINISH_ERROR,     /* this region failed; see error */
};

struct pm_reader_config {
    const char *model_dir; /* folder with pagemill.json and the packed weights */
    int threads;           /* compute threads of this reader, >= 1 */
    int max_running;       /* most requests admitted at once, >= 1 */
    /* Readers that write token by token; the others ignore them. */
    size_t memory_bytes; /* most memory of the process beyond mapped files; 0: no limit */
    bool kv_int8;        /* what running texts need in 8 bits */
    size_t cache_bytes;  /* most memory for what running texts need (KV cache); 0: the family's choice */
    /* Most memory for what was made of the pictures seen last, which identical ones then take. 0: the
     * family's choice, -1: none. */
    int64_t picture_cache_bytes;
    /* Tokens guessed ahead; they change the speed only. 0: as many as pay, -1: none, else always so many. */
    int drafts;
};

struct pm_reader_request {
    uint64_t id;           /* the caller's; unique among admitted requests */
    struct pm_image image; /* borrowed */
    enum pm_task task;
    /* Readers that write token by token; the others ignore the rest. */
    int max_tokens;           /* 0: the model's own limit */
    float temperature;        /* 0: always the likeliest token */
    float repetition_penalty; /* 0 and 1: none */
    uint64_t seed;            /* of the choices at a temperature */
};

/* A word of the text: bytes [start, end) of it, its extent as shares 0..1 of the picture's width, its
 * confidence. */
struct pm_reader_word {
    uint32_t start, end;
    float left, right;
    float confidence;
};

/* Where a request's time went. Work that several share (a pass of a network) is divided among them, so that
 * the phases of all add up to the reader's own time. */
enum { PM_READER_PHASES = 5 };
struct pm_reader_phase {
    const char *name; /* "prepare", "recognise", "decode"; "preprocess", "vision", "prefill", ... */
    int64_t us;
};
struct pm_reader_times {
    int64_t begun_us; /* pm_clock_us: it waited inside the reader until then */
    struct pm_reader_phase phases[PM_READER_PHASES];
    uint32_t phase_count;
};

struct pm_reader_event {
    uint64_t id;
    bool is_final;
    const char *text; /* final: the whole text; else what was added since the last event. UTF-8 */
    size_t text_bytes;
    /* The rest for final events only. */
    float confidence; /* 0..1, mean over kept characters or tokens */
    enum pm_finish finish;
    const struct pm_reader_word *words;
    size_t word_count;
    struct pm_error error; /* PM_FINISH_ERROR */
    struct pm_reader_times times;
    uint64_t tokens;            /* written; 0 of readers that do not write token by token */
    uint64_t drafted, accepted; /* tokens guessed ahead, and how many of them held */
};

/* Facts of the opened model, from its manifest. Valid as long as the reader. */
struct pm_reader_info {
    const char *name;   /* "fast" */
    const char *family; /* "ppocr" */
    enum pm_region_kind region_kind;
    unsigned tasks; /* bit set of 1 << enum pm_task */
};

/* What a reader has done since it was opened, for the log of its owner. */
struct pm_reader_counters {
    uint64_t pictures, pictures_reused; /* looked at; of these, known from an identical one */
};

struct pm_reader; /* opaque */

int pm_reader_open(const struct pm_reader_config *config, struct pm_reader **out, struct pm_error *err);
void pm_reader_free(struct pm_reader **reader);
struct pm_reader_info pm_reader_info(const struct pm_reader *reader);

/* How many more requests pm_reader_admit would take now. */
int pm_reader_room(const struct pm_reader *reader);
/* PM_EBUSY when full; PM_EINVAL for a task the model does not have or an id already admitted; PM_ELIMIT for a
 * picture it refuses. */
int pm_reader_admit(struct pm_reader *reader, const struct pm_reader_request *request, struct pm_error *err);
/* Drops a request at once, without an event. PM_ENOTFOUND when it is not admitted. */
int pm_reader_cancel(struct pm_reader *reader, uint64_t id, struct pm_error *err);
/* Does one short piece of work. *events_out: [count_out]. 0 events with running requests is normal. Errors
 * are of the engine as a whole (PM_EINTERNAL, PM_ENOMEM): the caller gives up the process. */
int pm_reader_step(struct pm_reader *reader, const struct pm_reader_event **events_out, size_t *count_out,
                   struct pm_error *err);
int pm_reader_running(const struct pm_reader *reader); /* admitted and unfinished */
/* Zeros of readers that count nothing. */
struct pm_reader_counters pm_reader_counters(const struct pm_reader *reader);

/* A family registers itself in reader.c's table by name. Model folders are found as DIR/NAME/pagemill.json.
 */
struct pm_reader_family {
    const char *name;
    int (*open)(const struct pm_reader_config *config, const char *manifest_json, void **state_out,
                struct pm_reader_info *info_out, struct pm_error *err);
    void (*free)(void *state);
    int (*room)(const void *state);
    int (*running)(const void *state);
    int (*admit)(void *state, const struct pm_reader_request *request, struct pm_error *err);
    int (*cancel)(void *state, uint64_t id, struct pm_error *err);
    int (*step)(void *state, const struct pm_reader_event **events_out, size_t *count_out,
                struct pm_error *err);
    struct pm_reader_counters (*counters)(const void *state); /* NULL: it counts nothing */
};

#endif
