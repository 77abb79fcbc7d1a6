/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer's target for qcow2 images: `./dev fuzz qcow2 SECONDS`. The last byte says whether the
 * file has a hole behind it.
 */
#include <stdlib.h>

#include "aio/loop.h"
#include "base/log.h"
#include "qcow2_try.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct error *err = NULL;
    struct aio_loop *loop = aio_loop_new("main", AIO_LOOP_EPOLL, &err);

    if (!loop) {
        error_report(err);
        return 1;
    }
    aio_loop_bind(loop);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 1) {
        qcow2_try(data, size - 1, data[size - 1] & 1);
    }
    return 0;
}
