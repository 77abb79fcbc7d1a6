/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "base/error.h"
#include "base/process.h"
#include "vmm/cmdline.h"
#include "vmm/lifecycle.h"
#include "vmm/setup.h"

int main(int argc, char **argv)
{
    struct cmdline cmdline;
    struct error *err = NULL;
    bool ok = true;
    int status = EXIT_SUCCESS;

    process_begin();
    switch (cmdline_parse(&cmdline, argc, argv, &err)) {
    case CMDLINE_EXIT:
        break;
    case CMDLINE_ERROR:
        ok = false;
        break;
    case CMDLINE_RUN:
        if (setup_help(&cmdline, &ok, &err)) {
            break;
        }
        ok = setup(&cmdline, &err);
        if (ok) {
            status = lifecycle_run();
        } else if (lifecycle_take_signal()) {
            error_free(err);
            ok = true;
        }
        setup_cleanup();
        break;
    }
    cmdline_free(&cmdline);
    if (!ok) {
        error_report(err);
        return EXIT_FAILURE;
    }
    return status;
}
