#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/text/grammar_dfa.h"

enum {
    STATES_BUDGET_BYTES = 16 << 20,
    MASKS_BUDGET_BYTES = 8 << 20,
    VISITS_MAX = 1 << 14, /* nodes looked at for one state */
    SEEN_SLOTS = VISITS_MAX * 2,
};

struct frame { /* one entry of a stack, and all below it */
    uint32_t back, below;
    uint32_t depth;
};

struct pm_dfa {
    const struct pm_nfa *nfa;
    uint8_t class_of[256];
    int class_count;
    struct pm_dfa_state *start;
    struct pm_dfa_state *nowhere; /* what next[] holds for bytes that are not allowed */
    struct pm_dfa_state **buckets;
    size_t bucket_count, state_count, state_bytes, mask_bytes, mask_words;
    uint64_t work, mask_key;
    struct frame *frames; /* 0: the empty stack */
    size_t frame_count, frame_capacity;
    uint32_t *frame_slots; /* open addressing over frames */
    size_t frame_slot_count;
    /* scratch of one step */
    struct pm_place places[PM_DFA_PLACES_MAX];
    size_t place_count, visits;
    struct pm_place *pending;
    size_t pending_count, pending_capacity;
    uint64_t *seen;
    uint32_t *seen_stamp, stamp;
};

static uint64_t scramble(uint64_t x)
{
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

/* ---- stacks ---- */

static void frames_rehash(struct pm_dfa *d)
{
    free(d->frame_slots);
    d->frame_slot_count = d->frame_slot_count ? d->frame_slot_count * 2 : 256;
    while (d->frame_slot_count < d->frame_count * 2)
        d->frame_slot_count *= 2;
    d->frame_slots = pm_xalloc(d->frame_slot_count * sizeof *d->frame_slots);
    for (size_t i = 1; i < d->frame_count; i++) {
        uint64_t key = (uint64_t)d->frames[i].back << 32 | d->frames[i].below;
        size_t at = scramble(key) & (d->frame_slot_count - 1);
        while (d->frame_slots[at])
            at = (at + 1) & (d->frame_slot_count - 1);
        d->frame_slots[at] = (uint32_t)i;
    }
}

static uint32_t push(struct pm_dfa *d, uint32_t back, uint32_t below)
{
    if (d->frame_count * 2 >= d->frame_slot_count)
        frames_rehash(d);
    uint64_t key = (uint64_t)back << 32 | below;
    size_t at = scramble(key) & (d->frame_slot_count - 1);
    for (; d->frame_slots[at]; at = (at + 1) & (d->frame_slot_count - 1)) {
        const struct frame *f = &d->frames[d->frame_slots[at]];
        if (f->back == back && f->below == below)
            return d->frame_slots[at];
    }
    PM_GROW(d->frames, d->frame_count, d->frame_capacity);
    d->frames[d->frame_count] = (struct frame){back, below, d->frames[below].depth + 1};
    d->frame_slots[at] = (uint32_t)d->frame_count;
    d->state_bytes += sizeof(struct frame) + 2 * sizeof(uint32_t);
    return (uint32_t)d->frame_count++;
}

/* ---- one state ---- */

/* True the first time in this step. */
static bool visit(struct pm_dfa *d, uint32_t node, uint32_t stack)
{
    uint64_t key = (uint64_t)node << 32 | stack;
    size_t at = scramble(key) & (SEEN_SLOTS - 1);
    for (; d->seen_stamp[at] == d->stamp; at = (at + 1) & (SEEN_SLOTS - 1))
        if (d->seen[at] == key)
            return false;
    if (d->visits >= VISITS_MAX)
        return false;
    d->visits++;
    d->seen[at] = key;
    d->seen_stamp[at] = d->stamp;
    return true;
}

static void pend(struct pm_dfa *d, uint32_t node, uint32_t stack)
{
    if (d->nfa->nodes[node].need + d->frames[stack].depth > PM_NFA_DEPTH_MAX || !visit(d, node, stack))
        return;
    PM_GROW(d->pending, d->pending_count, d->pending_capacity);
    d->pending[d->pending_count++] = (struct pm_place){node, stack};
}

/* Follows all that takes no byte. */
static void settle(struct pm_dfa *d)
{
    while (d->pending_count) {
        struct pm_place p = d->pending[--d->pending_count];
        const struct pm_nfa_node *node = &d->nfa->nodes[p.node];
        switch ((enum pm_nfa_kind)node->kind) {
        case PM_NFA_KIND_NOTHING:
            break;
        case PM_NFA_KIND_SPLIT:
            pend(d, node->b, p.stack);
            pend(d, node->a, p.stack);
            break;
        case PM_NFA_KIND_CALL:
            pend(d, d->nfa->rules[node->a], node->b == PM_NFA_RETURN ? p.stack : push(d, node->b, p.stack));
            break;
        case PM_NFA_KIND_RETURN:
            if (p.stack) {
                struct frame f = d->frames[p.stack];
                pend(d, f.back, f.below);
                break;
            }
            /* fallthrough */
        case PM_NFA_KIND_BYTES:
            if (d->place_count < PM_DFA_PLACES_MAX)
                d->places[d->place_count++] = p;
            break;
        }
    }
}

static void step_start(struct pm_dfa *d)
{
    d->place_count = d->visits = d->pending_count = 0;
    if (++d->stamp == 0) {
        memset(d->seen_stamp, 0, SEEN_SLOTS * sizeof *d->seen_stamp);
        d->stamp = 1;
    }
}

static int by_place(const void *a, const void *b)
{
    const struct pm_place *x = a, *y = b;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return (x->stack > y->stack) - (x->stack < y->stack);
}

static uint64_t hash_places(struct pm_place *places, size_t count)
{
    uint64_t hash = count;
    qsort(places, count, sizeof *places, by_place);
    for (size_t i = 0; i < count; i++)
        hash = scramble(hash ^ ((uint64_t)places[i].node << 32 | places[i].stack)) + i;
    return hash;
}

static void link_state(struct pm_dfa *d, struct pm_dfa_state *s)
{
    struct pm_dfa_state **bucket = &d->buckets[s->hash & (d->bucket_count - 1)];
    s->chain = *bucket;
    *bucket = s;
    d->state_count++;
}

static void grow_buckets(struct pm_dfa *d)
{
    struct pm_dfa_state **old = d->buckets;
    size_t count = d->bucket_count;
    d->bucket_count = count ? count * 2 : 256;
    d->buckets = pm_xalloc(d->bucket_count * sizeof(struct pm_dfa_state *));
    d->state_count = 0;
    for (size_t i = 0; i < count; i++)
        for (struct pm_dfa_state *s = old[i], *chain; s; s = chain) {
            chain = s->chain;
            link_state(d, s);
        }
    free(old);
}

static size_t state_size(const struct pm_dfa *d, const struct pm_dfa_state *s)
{
    return sizeof *s + s->count * sizeof *s->places + (size_t)d->class_count * sizeof(struct pm_dfa_state *);
}

/* The state of d->places. */
static struct pm_dfa_state *intern(struct pm_dfa *d)
{
    if (d->place_count == 0)
        return d->nowhere;
    uint64_t hash = hash_places(d->places, d->place_count);
    size_t bytes = d->place_count * sizeof *d->places;
    for (struct pm_dfa_state *s = d->buckets[hash & (d->bucket_count - 1)]; s; s = s->chain)
        if (s->hash == hash && s->count == d->place_count && memcmp(s->places, d->places, bytes) == 0)
            return s;
    if (d->state_count >= d->bucket_count)
        grow_buckets(d);
    struct pm_dfa_state *s = pm_xalloc(sizeof *s + bytes);
    s->hash = hash;
    s->count = (uint32_t)d->place_count;
    s->next = pm_xalloc((size_t)d->class_count * sizeof(struct pm_dfa_state *));
    memcpy(s->places, d->places, bytes);
    for (size_t i = 0; i < d->place_count; i++) {
        s->is_accept = s->is_accept || d->places[i].node == PM_NFA_RETURN;
        s->can_go_on = s->can_go_on || d->places[i].node != PM_NFA_RETURN;
    }
    link_state(d, s);
    d->state_bytes += state_size(d, s);
    d->work += state_size(d, s);
    return s;
}

static void free_state(struct pm_dfa_state *s)
{
    free(s->mask);
    free(s->next);
    free(s);
}

/* ---- the whole ---- */

struct pm_dfa *pm_dfa_new(const struct pm_nfa *nfa)
{
    struct pm_dfa *d = pm_xalloc(sizeof *d);
    bool is_border[257] = {false};
    d->nfa = nfa;
    d->nowhere = pm_xalloc(sizeof *d->nowhere);
    for (size_t i = 0; i < nfa->edge_count; i++)
        is_border[nfa->edges[i].lo] = is_border[nfa->edges[i].hi + 1] = true;
    for (int i = 0, class = 0; i < 256; i++) {
        class += i && is_border[i];
        d->class_of[i] = (uint8_t) class;
        d->class_count = class + 1;
    }
    PM_GROW(d->frames, d->frame_count, d->frame_capacity);
    d->frames[d->frame_count++] = (struct frame){0};
    d->seen = pm_xalloc(SEEN_SLOTS * sizeof *d->seen);
    d->seen_stamp = pm_xalloc(SEEN_SLOTS * sizeof *d->seen_stamp);
    grow_buckets(d);
    step_start(d);
    pend(d, nfa->rules[0], 0);
    settle(d);
    d->start = intern(d);
    d->start->holders++;
    return d;
}

void pm_dfa_free(struct pm_dfa **dfa)
{
    struct pm_dfa *d = *dfa;
    if (d == NULL)
        return;
    for (size_t i = 0; i < d->bucket_count; i++)
        for (struct pm_dfa_state *s = d->buckets[i], *chain; s; s = chain) {
            chain = s->chain;
            free_state(s);
        }
    free(d->nowhere);
    free(d->buckets);
    free(d->frames);
    free(d->frame_slots);
    free(d->pending);
    free(d->seen);
    free(d->seen_stamp);
    free(d);
    *dfa = NULL;
}

struct pm_dfa_state *pm_dfa_start(struct pm_dfa *d)
{
    return d->start;
}

void pm_dfa_hold(struct pm_dfa_state *s)
{
    s->holders++;
}

void pm_dfa_drop(struct pm_dfa_state *s)
{
    s->holders--;
}

uint64_t pm_dfa_work(const struct pm_dfa *d)
{
    return d->work;
}

bool pm_dfa_step_known(const struct pm_dfa *d, const struct pm_dfa_state *s, uint8_t byte,
                       struct pm_dfa_state **next_out)
{
    struct pm_dfa_state *next = s->next[d->class_of[byte]];
    *next_out = next == d->nowhere ? NULL : next;
    return next != NULL;
}

/* The node that a byte leads to from a bytes node. */
static uint32_t follow(const struct pm_nfa *nfa, const struct pm_nfa_node *node, uint8_t byte)
{
    const struct pm_nfa_edge *edges = nfa->edges + node->a;
    uint32_t lo = 0, hi = node->b;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (edges[mid].hi < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < node->b && edges[lo].lo <= byte ? edges[lo].next : PM_NFA_NOTHING;
}

struct pm_dfa_state *pm_dfa_step(struct pm_dfa *d, struct pm_dfa_state *s, uint8_t byte)
{
    struct pm_dfa_state *next;
    if (pm_dfa_step_known(d, s, byte, &next))
        return next;
    step_start(d);
    for (uint32_t i = 0; i < s->count; i++) {
        const struct pm_nfa_node *node = &d->nfa->nodes[s->places[i].node];
        if (node->kind != PM_NFA_KIND_BYTES)
            continue;
        uint32_t to = follow(d->nfa, node, byte);
        if (to == PM_NFA_NOTHING)
            continue;
        pend(d, to, s->places[i].stack);
        settle(d);
    }
    d->work += 64 + 16 * (d->visits + s->count);
    next = intern(d);
    s->next[d->class_of[byte]] = next;
    return next == d->nowhere ? NULL : next;
}

/* ---- bounds ---- */

static uint32_t copy_stack(struct pm_dfa *d, const struct frame *old, uint32_t stack)
{
    if (stack == 0)
        return 0;
    return push(d, old[stack].back, copy_stack(d, old, old[stack].below));
}

void pm_dfa_trim(struct pm_dfa *d)
{
    if (d->state_bytes <= STATES_BUDGET_BYTES)
        return;
    struct pm_dfa_state *held = NULL;
    for (size_t i = 0; i < d->bucket_count; i++) {
        for (struct pm_dfa_state *s = d->buckets[i], *chain; s; s = chain) {
            chain = s->chain;
            if (s->holders) {
                s->chain = held;
                held = s;
            } else {
                d->mask_bytes -= s->mask ? d->mask_words * sizeof *s->mask : 0;
                free_state(s);
            }
        }
        d->buckets[i] = NULL;
    }
    struct frame *old = d->frames;
    d->frames = NULL;
    d->frame_count = d->frame_capacity = d->frame_slot_count = d->state_count = d->state_bytes = 0;
    free(d->frame_slots);
    d->frame_slots = NULL;
    PM_GROW(d->frames, d->frame_count, d->frame_capacity);
    d->frames[d->frame_count++] = (struct frame){0};
    for (struct pm_dfa_state *s = held, *chain; s; s = chain) {
        chain = s->chain;
        memset(s->next, 0, (size_t)d->class_count * sizeof(struct pm_dfa_state *));
        for (uint32_t i = 0; i < s->count; i++)
            s->places[i].stack = copy_stack(d, old, s->places[i].stack);
        s->hash = hash_places(s->places, s->count);
        link_state(d, s);
        d->state_bytes += state_size(d, s);
    }
    free(old);
}

uint32_t *pm_dfa_mask(struct pm_dfa *d, struct pm_dfa_state *s, uint64_t key, size_t words, bool *is_new_out)
{
    size_t bytes = words * sizeof *s->mask;
    bool is_other = d->mask_key != key || d->mask_words != words;
    if (is_other || (s->mask == NULL && d->mask_bytes + bytes > MASKS_BUDGET_BYTES)) {
        for (size_t i = 0; i < d->bucket_count && d->mask_bytes; i++)
            for (struct pm_dfa_state *other = d->buckets[i]; other; other = other->chain) {
                free(other->mask);
                other->mask = NULL;
            }
        d->mask_bytes = 0;
        d->mask_key = key;
        d->mask_words = words;
    }
    *is_new_out = s->mask == NULL;
    if (s->mask == NULL) {
        s->mask = pm_xalloc(bytes ? bytes : 1);
        d->mask_bytes += bytes;
    }
    return s->mask;
}
