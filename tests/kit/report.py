# SPDX-License-Identifier: MIT
"""How a test script tells tests/run.py what came of its cases: one line each,

    CASE name PASS|FAIL|SKIP reason
"""
import sys

from kit import debian

SKIP_STATUS = 77  # exit status of a script that could not run; its last line says why


class Results:
    def __init__(self):
        self._failed = 0
        self._cases = 0

    def case(self, name, fault=None, remark=""):
        """A case that passed, or failed if there is a fault."""
        self._cases += 1
        self._failed += bool(fault)
        print(f"CASE {name} {'FAIL' if fault else 'PASS'} {fault or remark}".rstrip(), flush=True)

    def skip(self, name, reason):
        self._cases += 1
        print(f"CASE {name} SKIP {reason}", flush=True)

    def exit_status(self):
        """A script without cases has tested nothing."""
        return 1 if self._failed or not self._cases else 0


def show_tail(output, lines=25):
    """The end of a failed case's output, indented."""
    for line in output.splitlines()[-lines:]:
        print("    | " + line)


def run(main):
    """Ends the program with main()'s status, or skips it where Debian's packages cannot be had."""
    try:
        sys.exit(main())
    except debian.Unavailable as unavailable:
        print(unavailable)
        sys.exit(SKIP_STATUS)
