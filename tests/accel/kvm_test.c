/* SPDX-License-Identifier: MIT */
/* The tests of the KVM engine, in one program that also runs in L1. Without /dev/kvm it is
 * skipped. */
#include "kvm_fixture.h"

#include <errno.h>
#include <fcntl.h>

int main(void)
{
    struct error *err = NULL;
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        printf("/dev/kvm cannot be opened: %s\n", strerror(errno));
        return 77;
    }
    kvm_install_kick_handler();
    emulated = !kvm_probe(fd, &err);
    close(fd);
    error_free(err);
    return kvm_io_tests() + kvm_irq_tests() + kvm_route_tests() + kvm_exit_tests() +
           kvm_state_tests();
}
