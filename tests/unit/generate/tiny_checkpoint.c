/* tiny_checkpoint block|line|endless FOLDER: the checkpoint of tiny_model.h, for tests of whole fleets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tiny_model.h"

int main(int argc, char **argv)
{
    static const char *const kinds[] = {"block", "line", "endless"};
    for (int kind = 0; argc == 3 && kind < 3; kind++)
        if (!strcmp(argv[1], kinds[kind])) {
            pm_tiny_checkpoint(argv[2], (enum pm_tiny_kind)kind);
            return 0;
        }
    fprintf(stderr, "usage: tiny_checkpoint block|line|endless FOLDER\n");
    return 2;
}
