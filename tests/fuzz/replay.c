/* Runs a fuzz target without a fuzzer: every file of the folders given, then each of them a number of times
 * with a few of its bytes changed, always the same way. `replay ROUNDS DIR...` */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    return x ^ (x >> 31);
}

/* A heap block of the exact size: sanitizers see the byte behind it. */
static void run(const uint8_t *data, size_t size, uint64_t *random, unsigned changes)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    memcpy(copy, data, size);
    for (unsigned i = 0; i < changes && size; i++) {
        uint64_t r = next_random(random);
        size_t at = (size_t)(r >> 16) % size;
        copy[at] = r & 1 ? (uint8_t)(r >> 8) : (uint8_t)(copy[at] ^ (1u << ((r >> 8) & 7)));
    }
    if (changes && next_random(random) % 4 == 0)
        size = (size_t)next_random(random) % (size + 1);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0, files = 0;
    uint64_t random = 1;
    for (int i = 2; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        const struct dirent *entry;
        while (dir && (entry = readdir(dir))) {
            struct pm_buf text = {0};
            char *path = pm_fs_join(argv[i], entry->d_name);
            if (pm_fs_is_file(path) && !pm_fs_read(path, 1 << 20, &text, NULL)) {
                run(text.data ? text.data : (const uint8_t *)"", text.size, &random, 0);
                for (unsigned k = 0; k < rounds; k++)
                    run(text.data ? text.data : (const uint8_t *)"", text.size, &random, 1 + k % 6);
                files++;
            }
            pm_buf_free(&text);
            free(path);
        }
        if (dir)
            closedir(dir);
    }
    printf("%u files, %u changed copies of each\n", files, rounds);
    return files ? 0 : 1;
}
