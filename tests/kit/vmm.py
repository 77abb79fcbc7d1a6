# SPDX-License-Identifier: MIT
"""What scripts need to know of the ferry under test."""
import subprocess

QMP_QUIT = '{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n'


def kvm_refusal(build):
    """Why ferry cannot use this host's KVM, in ferry's words, or None if it can."""
    try:
        run = subprocess.run(
            [build / "ferry", "-M", "q35", "-accel", "kvm", "-m", "16", "-nodefaults",
             "-display", "none", "-S", "-qmp", "stdio"],
            input=QMP_QUIT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return "ferry does not answer"
    return None if run.returncode == 0 else run.stderr.strip() or f"status {run.returncode}"
