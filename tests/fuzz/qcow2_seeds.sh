#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes small images for qcow2_fuzz to begin with: qcow2_seeds.sh DIRECTORY. Needs qemu-utils.
set -eu

mkdir -p "$1"
cd "$1"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
image=$work/image

# A byte behind the image: no hole (even) or a hole (odd).
keep() {
    { cat "$image" && printf '\0'; } > "seed-$1"
    { cat "$image" && printf '\1'; } > "seed-$1-hole"
}

create() {
    rm -f "$image"
    qemu-img create -q -f qcow2 -o "$1" "$image" "$2"
}

io() {
    for command; do
        qemu-io -c "$command" "$image" > /dev/null
    done
}

create cluster_size=512 64k
keep empty
create cluster_size=512 256k
io 'write -q 0 4k' 'write -q -z 100k 4k'
keep v3
qemu-img snapshot -c a "$image"
io 'write -q 1k 2k'
qemu-img snapshot -c b "$image"
keep snapshots
create cluster_size=512,compat=0.10 256k
io 'write -q 0 4k'
qemu-img snapshot -c old "$image"
keep v2
create cluster_size=1k,refcount_bits=1 256k
io 'write -q 0 4k'
keep refcount1
create cluster_size=512,refcount_bits=64,lazy_refcounts=on 256k
io 'write -q 0 4k'
keep refcount64
create cluster_size=16k,extended_l2=on 256k
io 'write -q 1k 5k' 'write -q -z 20k 3k'
keep subclusters
create cluster_size=512 256k
qemu-img bitmap --add -g 512 "$image" bitmap
io 'write -q 1k 2k'
keep bitmap
for type in zlib zstd; do
    truncate -s 64k "$work/raw"
    qemu-io -f raw -c 'write -q -P 3 0 30k' "$work/raw" > /dev/null
    rm -f "$image"
    qemu-img convert -c -f raw -O qcow2 -o cluster_size=4k,compression_type=$type "$work/raw" \
        "$image"
    keep $type
done
