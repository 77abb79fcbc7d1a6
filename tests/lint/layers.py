#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks who includes whom under src/.

A file of a layer includes only headers of its own layer and of earlier ones; block stands on
base, trace and aio alone, nbd on these and block, the image tools on these four and nbd. Only
src/accel/kvm knows the KVM API.

    layers.py [repository]      prints every violation; exit status 1 if there is one
"""
import pathlib
import re
import sys

LAYERS = ["base", "trace", "aio", "mem", "block", "nbd", "device", "accel", "pci", "chardev", "hw",
          "machine", "monitor", "vmm", "tools"]
# Layers that may use less than all earlier ones.
NARROW = {"block": ["base", "trace", "aio"], "nbd": ["base", "trace", "aio", "block"],
          "tools": ["base", "trace", "aio", "block", "nbd"]}
# A system header and the one folder that may include it.
PRIVATE_HEADERS = {"linux/kvm.h": "accel/kvm"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]', re.MULTILINE)


def allowed_layers(layer):
    earlier = NARROW.get(layer, LAYERS[:LAYERS.index(layer)])
    return set(earlier) | {layer}


def violations_of(path, src):
    relative = path.relative_to(src)
    layer = relative.parts[0]
    if layer not in LAYERS:
        yield f"src/{relative}: folder {layer}/ is no layer (tests/lint/layers.py lists them)"
        return
    text = path.read_text(encoding="utf-8")
    for match in INCLUDE.finditer(text):
        quote, header = match.groups()
        line = text.count("\n", 0, match.start(2)) + 1
        where = f"src/{relative}:{line}"
        owner = PRIVATE_HEADERS.get(header)
        if owner and not str(relative).startswith(owner + "/"):
            yield f"{where}: only src/{owner} may include <{header}>"
        if quote == "<":
            continue
        if "/" not in header:
            if header != "config.h" and not (path.parent / header).exists():
                yield f'{where}: "{header}" is not in the same folder; write its path from src/'
            continue
        target = header.split("/")[0]
        if target == ".." or target not in LAYERS:
            yield f'{where}: "{header}" does not begin with a layer'
        elif target not in allowed_layers(layer):
            yield f'{where}: {layer} may not include "{header}"'


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    src = root / "src"
    files = sorted(p for p in src.rglob("*") if p.suffix in (".c", ".h", ".S"))
    found = [v for path in files for v in violations_of(path, src)]
    for violation in found:
        print(violation)
    print(f"{len(files)} files, {len(found)} layer violations")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())
