/* Many small allocations, freed together. Memory is zeroed and 16-byte aligned; allocation aborts when memory
 * is out (callers bound what they decode). Threads: one owner. */
#ifndef PM_BASE_ARENA_H
#define PM_BASE_ARENA_H

#include <stddef.h>

struct pm_arena { /* zero-initialise */
    struct pm_arena_block *block;
};
void *pm_arena_alloc(struct pm_arena *arena, size_t bytes);
char *pm_arena_text(struct pm_arena *arena, const char *text, size_t bytes); /* NUL-terminated copy */
void pm_arena_clear(struct pm_arena *arena); /* frees everything but one block */
void pm_arena_free(struct pm_arena *arena);

#endif
