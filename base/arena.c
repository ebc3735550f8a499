#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct pm_arena_block {
    struct pm_arena_block *next;
    size_t used, capacity;
    _Alignas(16) unsigned char bytes[];
};

void *pm_arena_alloc(struct pm_arena *arena, size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    struct pm_arena_block *b = arena->block;
    if (!b || b->capacity - b->used < bytes) {
        size_t capacity = b ? b->capacity * 2 : 4096;
        if (capacity > (size_t)1 << 20)
            capacity = (size_t)1 << 20;
        if (capacity < bytes)
            capacity = bytes;
        b = pm_xalloc(sizeof *b + capacity);
        b->capacity = capacity;
        b->next = arena->block;
        arena->block = b;
    }
    void *p = b->bytes + b->used;
    b->used += bytes;
    return p;
}

char *pm_arena_text(struct pm_arena *arena, const char *text, size_t bytes)
{
    char *p = pm_arena_alloc(arena, bytes + 1);
    if (bytes)
        memcpy(p, text, bytes);
    return p;
}

void pm_arena_clear(struct pm_arena *arena)
{
    struct pm_arena_block *b = arena->block;
    if (!b)
        return;
    while (b->next) {
        struct pm_arena_block *next = b->next;
        free(b);
        b = next;
    }
    memset(b->bytes, 0, b->used);
    b->used = 0;
    arena->block = b;
}

void pm_arena_free(struct pm_arena *arena)
{
    while (arena->block) {
        struct pm_arena_block *next = arena->block->next;
        free(arena->block);
        arena->block = next;
    }
}
