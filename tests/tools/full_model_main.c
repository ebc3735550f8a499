/* full-model OUT [--tokenizer FILE]: writes the checkpoint of full_model.h. */
#include <stdio.h>
#include <string.h>

#include "tests/tools/full_model.h"

int main(int argc, char **argv)
{
    struct pm_error err = {0};
    if ((argc != 2 && argc != 4) || (argc == 4 && strcmp(argv[2], "--tokenizer"))) {
        fprintf(stderr, "usage: full-model OUT [--tokenizer FILE]\n");
        return 2;
    }
    if (full_model_write(argv[1], argc == 4 ? argv[3] : NULL, &err)) {
        fprintf(stderr, "full-model: %s\n", err.text);
        return 1;
    }
    return 0;
}
