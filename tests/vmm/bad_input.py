# SPDX-License-Identifier: MIT
"""What a user can get wrong: each ends with status 1 and one line that names the culprit."""
import concurrent.futures
import os
import pathlib
import shutil
import socket
import struct
import subprocess

TIMEOUT = 20  # seconds
BASE = ["-M", "q35", "-accel", "qtest", "-nodefaults", "-display", "none"]
DISK = "-drive if=none,id=d,driver=null-co"

# Options, separated by spaces, after BASE; DIR is a folder with the files that make_files() makes.
# Then parts that the message must have; "| text" must be in the hint instead.
TABLE = [
    # images
    ("-drive if=virtio,format=raw,file=DIR/missing.img", "missing.img", "No such file"),
    ("-drive if=virtio,format=raw,file=DIR", "DIR", "directory"),
    ("-drive if=virtio,format=raw,file=DIR/folder/", "folder", "directory"),
    ("-drive if=virtio,format=raw,file=DIR/unreadable.img", "unreadable.img", "Permission denied"),
    ("-drive if=virtio,format=raw,file=DIR/readonly.img", "readonly.img", "Permission denied"),
    ("-drive if=virtio,format=raw,file=DIR/socket", "socket"),
    ("-drive if=virtio,format=raw,file=/dev/null", "/dev/null", "regular file"),
    ("-drive if=virtio,format=raw,file=", "file"),
    ("-drive if=virtio,format=raw", "file="),
    ("-drive if=virtio", "-drive needs file=FILE"),
    ("-drive if=virtio,format=qcow2,file=DIR/disk.img", "disk.img", "not in qcow2 format"),
    ("-drive if=virtio,format=rwa,file=DIR/disk.img", "Unknown driver 'rwa'", "raw"),
    ("-drive if=virtio,file=DIR/qcow2.img", "qcow2.img", "cluster_bits"),
    # -drive
    ("-drive if=virtoi,format=raw,file=DIR/disk.img", "virtoi", "virtio"),
    ("-drive if=ide,format=raw,file=DIR/disk.img", "if=virtio"),
    ("-drive format=raw,file=DIR/disk.img", "if=virtio"),
    ("-drive if=none,cache=nnoe,file=DIR/disk.img,format=raw", "cache=nnoe", "writeback"),
    ("-drive if=none,aio=uring,file=DIR/disk.img,format=raw", "uring", "io_uring"),
    ("-drive if=none,readonly=maybe,file=DIR/disk.img,format=raw", "readonly", "maybe"),
    ("-drive if=none,raedonly=on,file=DIR/disk.img,format=raw", "raedonly", "readonly"),
    ("-drive if=none,id=d,driver=null-co,serial=X1 -device virtio-blk-pci,drive=d", "-drive",
     "give serial=X1 to the -device"),
    ("-drive if=none,id=1x,file=DIR/disk.img,format=raw", "id"),
    (DISK + " -drive if=none,id=d,driver=null-co", "'d'"),
    ("-drive if=none,id=d,format=raw,file=DIR/other.img "
     "-drive if=none,id=e,format=raw,file=DIR/other.img "
     "-device virtio-blk-pci,drive=d -device virtio-blk-pci,drive=e", "other.img", "lock",
     "| share-rw=on"),
    ("-drive if=none,id=d,format=raw,file=DIR/other2.img "
     "-drive if=none,id=e,format=raw,file=DIR/other2.img -device virtio-blk-pci,drive=d,share-rw=on "
     "-device virtio-blk-pci,drive=e", "drive=e", "other2.img", "lock", "| share-rw=on"),
    (DISK + " -device virtio-blk-pci,drive=d -device virtio-blk-pci,drive=d", "'d'"),
    ("-drive if=virtio,id=v,driver=null-co -device virtio-blk-pci,drive=v", "'v'", "| if=none"),
    ("-drive if=none,format=raw,file=DIR/disk.img,file.filename=DIR/other.img", "'file.filename'"),
    # -blockdev
    ("-blockdev driver=null-co", "node-name"),
    ("-blockdev null-co", "node-name"),
    ("-blockdev node-name=n", "driver"),
    ("-blockdev driver=nul-co,node-name=n", "nul-co", "null-co"),
    ("-blockdev driver=null-co,node-name=n -blockdev driver=null-co,node-name=n", "'n'"),
    ("-blockdev driver=null-co,node-name=n,sise=1M", "sise", "size"),
    ("-blockdev driver=null-co,node-name=n,size=x", "size", "'x'"),
    ("-blockdev driver=raw,node-name=n", "file"),
    ("-blockdev driver=raw,node-name=n,file=nope", "nope"),
    ("-blockdev driver=file,node-name=n,filename=DIR/missing.img", "missing.img", "No such file"),
    ("-blockdev {", "JSON"),
    ('-blockdev {"driver":"null-co","node-name":"n","size":"x"}', "size"),
    ('-blockdev {"driver":"null-co","node-name":"n","size":"1M"}', "'size'", "integer"),
    # devices
    ("-device nope", "'nope' is not a valid device model name", "| -device help"),
    ("-device virtio-blk-pic", "virtio-blk-pic", "| virtio-blk-pci"),
    ("-device virtio-blk-pci", "drive"),
    ("-device virtio-blk-pci,drive=nope", "nope"),
    (DISK + " -device virtio-blk-pci,drive=d,drvie=d", "drvie", "| drive"),
    (DISK + " -device virtio-blk-pci,drive=d,iothread=io0", "io0", "| -object iothread,id=io0"),
    (DISK + " -device virtio-blk-pci,drive=d,queue-size=3", "queue-size"),
    (DISK + " -device virtio-blk-pci,drive=d,bus=pci.9", "pci.9"),
    (DISK + " -device virtio-blk-pci,drive=d,addr=40", "addr"),
    (DISK + " -device virtio-blk-pci,drive=d,num-queues=x", "num-queues"),
    ("-device pci-testdev,addr=5 -device pci-testdev,addr=5", "slot 5", "| addr="),
    ("-device pci-testdev,membar=64G", "no room for BAR 2 (67108864 KiB) of pci-testdev",
     "make membar= smaller"),
    ("-device pci-testdev,addr=1f", "slot 31"),
    ("-device pci-testdev " * 40 + "-device isa-debug-exit", "no slot available for pci-testdev",
     "'pcie.0' is full", "| multifunction=on", "| addr="),
    ("-device pci-testdev,bus=pcie.0,id=t " + "-device pci-testdev,bus=pcie.0 " * 40 +
     "-device isa-debug-exit", "bus 'pcie.0' is full", "| addr="),
    ("-device pci-testdev,multifunction=on,addr=2.0 " + "-device pci-testdev " * 29 +
     "-device pci-testdev,addr=2.1 -device pci-testdev,addr=2.1", "slot 2 function 1"),
    ("-blockdev null-co,node-name=a -blockdev null-co,node-name=b -device virtio-blk-pci,drive=a,"
     "bootindex=3,id=x -device virtio-blk-pci,drive=b,bootindex=3",
     "The bootindex 3 has already been used", "| virtio-blk-pci,id=x"),
    ("-blockdev null-co,node-name=a -device virtio-blk-pci,drive=a,bootindex=99999999999",
     "'bootindex' expects int32_t"),
    ("-device pci-testdev,id=a -device pci-testdev,id=a", "'a'"),
    ("-device pci-testdev,id=a/b", "id", "| letters"),
    ("-device ioapic", "ioapic"),
    ("-device iothread,id=a", "iothread", "| -object"),
    ("-device isa-debug-exit,iobase=zz", "iobase"),
    ("-device isa-debug-exit,iobase=0x20000", "iobase"),
    ("-device isa-serial,chardev=nope", "nope"),
    ("-device loader", "loader"),
    ("-device loader,file=DIR/missing", "missing", "No such file"),
    ('-drive if=none,id=d,driver=null-co '
     '-device {"driver":"virtio-blk-pci","drive":"d","share-rw":"on"}', "'share-rw'", "boolean"),
    ('-device {"driver":"pci-testdev","addr":256}', "addr", "256"),
    ('-device {"driver":"pci-testdev","addr":true}', "'addr'", "string"),
    ("-device loader,addr=0x100,data=1", "data-len"),
    ("-device loader,addr=0xfffffffffffffffe,data=1,data-len=8", "loader"),
    ("-device ,", "-device"),
    ("-global nope.x=1", "nope"),
    ("-global isa-debug-exit.nope=1", "nope"),
    ("-global isa-debug-exit.iobase=zz -device isa-debug-exit", "iobase"),
    ("-global nope", "nope"),
    ("-global kvm-pit.lost_tick_policy=discard", "kvm-pit.lost_tick_policy=delay"),
    ("-global ICH9-LPC.disable_s3=0", "disable_s3"),
    # objects
    ("-object iothread", "'id'"),
    ("-object iothred,id=a", "iothred", "| iothread"),
    ("-object iothread,id=a -object iothread,id=a", "'a'"),
    ("-object iothread,id=a,poll-max-sn=1", "poll-max-sn", "| poll-max-ns"),
    ("-object iothread,id=a,thread-pool-max=0", "bad thread-pool-min/thread-pool-max values"),
    ("-object iothread,id=a,thread-pool-min=65", "bad thread-pool-min/thread-pool-max values"),
    ("-object memory-backend-ram,id=a,size=1M", "memory-backend-ram"),
    ('-object {"qom-type":"iothread","id":"a","poll-max-ns":"5"}', "'poll-max-ns'", "integer"),
    ("-object tls-creds-x509,id=a,endpoint=client,dir=DIR/none", "none/ca-cert.pem",
     "No such file"),
    # kernels
    ("-kernel DIR/missing", "missing", "No such file"),
    ("-kernel DIR", "DIR", "directory"),
    ("-kernel DIR/empty", "empty"),
    ("-kernel DIR/disk.img", "disk.img", "no kernel"),
    ("-kernel DIR/bzimage-cut", "bzimage-cut"),
    ("-kernel DIR/bzimage-old", "bzimage-old", "boot protocol"),
    ("-kernel DIR/bzimage-32", "bzimage-32", "64-bit"),
    ("-kernel DIR/bzimage-big", "bzimage-big", "-m"),
    ("-kernel DIR/elf-cut", "elf-cut"),
    ("-kernel DIR/bzimage -initrd DIR/missing", "missing", "No such file"),
    ("-kernel DIR/bzimage -initrd DIR/empty", "empty"),
    ("-kernel DIR/bzimage -initrd DIR/huge", "huge", "-m"),
    ("-kernel DIR/bzimage -append " + "x" * 5000, "-append"),
    ("-initrd DIR/disk.img", "-kernel"),
    ("-append quiet", "-kernel"),
    ("-bios DIR/missing", "missing", "No such file"),
    ("-bios DIR/cut.bin", "cut.bin", "64 KiB"),
    ("-bios DIR/rom.bin -kernel DIR/bzimage", "-bios"),
    ("-bios DIR/rom.bin -append quiet", "-kernel"),
    # machine
    ("-m 100T", "host"),
    ("-m 0", "-m 0"),
    ("-m 1", "-m"),
    ("-m x", "'x'"),
    ("-m 99999999999999999999G", "-m"),
    ("-m 512,slots=2", "slots"),
    ("-smp 0", "cpus=0"),
    ("-smp 100000", "100000"),
    ("-smp 289", "289", "288"),
    ("-smp 3,sockets=2", "sockets"),
    ("-smp 2,maxcpus=4", "maxcpus"),
    ("-smp 2,coers=2", "coers", "cores"),
    ("-M q53", "q53", "q35"),
    ("-M q35,apci=off", "apci", "acpi"),
    ("-M q35,acpi=perhaps", "perhaps"),
    ("-M q35,hpet=on", "hpet"),
    ("-M q35,kernel-irqchip=maybe", "maybe"),
    ("-M q35,smm=maybe", "maybe"),
    ("-accel qtest,foo=on", "foo"),
    ("-m 8G -cpu qemu64,phys-bits=33",
     "Address space limit 0x1ffffffff < 0xa7fffffff phys-bits too low (33)", "| less RAM"),
    ("-m 2G -cpu qemu64,phys-bits=33", "0x1ffffffff < 0x8ffffffff"),
    ("-M pc -m 8G -cpu qemu64,phys-bits=33", "0x1ffffffff < 0x2bfffffff"),
    ("-m 8G -cpu qemu64,phys-bits=32", "0xffffffff < 0x27fffffff"),
    ("-cpu nope", "nope", "-cpu help"),
    ("-cpu EPYX", "EPYX", "EPYC"),
    ("-cpu EPYC,+sse5.1", "sse5.1"),
    ("-rtc base=yesterday", "yesterday"),
    ("-rtc clock=slow", "slow"),
    ("-rtc bass=utc", "bass", "base"),
    ("-name a,debug-thread=on", "debug-thread", "debug-threads"),
    ("-action panic=explode", "explode"),
    ("-action reboot", "reboot"),
    ("-msg timestamp=perhaps", "-msg", "perhaps"),
    ("-msg timestmap=on", "timestmap", "timestamp"),
    ("-uuid 1234", "-uuid 1234"),
    ("-boot d", "-boot order=d", "firmware"),
    ("-overcommit mem-lock=on", "mem-lock=on is not in this build"),
    # characters and monitors
    ("-chardev null", "'id'"),
    ("-chardev nul,id=a", "nul", "null"),
    ("-chardev null,id=a -chardev null,id=a", "'a'"),
    ("-chardev socket,id=a", "path"),
    ("-chardev socket,id=a,path=DIR/nobody", "nobody"),
    ("-chardev socket,id=a,path=DIR/nobody,sever=on", "sever", "server"),
    ("-chardev socket,id=a,path=" + "x" * 200 + ",server=on", "xxx"),
    ("-chardev file,id=a,path=DIR/missing/x", "missing/x"),
    ("-chardev socket,id=a,host=localhost,port=99999", "99999"),
    ("-serial nope", "nope"),
    ("-serial chardev:nope", "nope"),
    ("-serial null -serial null -serial null -serial null -serial null", "serial ports"),
    ("-chardev null,id=a -mon a,mode=control -mon a,mode=control", "'a'"),
    ("-mon nope,mode=control", "nope"),
    ("-chardev null,id=a -mon a", "mode=control"),
    ("-chardev null,id=a -mon a,mode=control,id=1", "'id'"),
    ("-chardev null,id=a -mon a,mode=controll", "controll"),
    ("-qmp nope", "nope"),
    ("-qmp-pretty nope", "-qmp-pretty nope"),
    ("-debugcon nope", "-debugcon nope"),
    ("-debugcon none", "-debugcon none"),
    ("-debugcon null -debugcon null", "-debugcon null", "0xe9"),
    ("-qmp tcp:localhost", "localhost"),
    ("-qtest null -qtest null", "qtest"),
    ("-qtest null -qtest-log DIR/missing/log", "missing/log"),
    ("-monitor stdio", "-monitor none"),
    ("-echr 256", "256"),
    # the rest
    ("-d nope", "nope"),
    ("-D DIR/missing/log", "missing/log"),
    ("-pidfile DIR/missing/pid", "missing/pid"),
    ("-kernal x", "-kernal", "'-kernel'"),
    ("--devcie x", "--devcie", "'-device'"),
    ("-zzzzzz", "-zzzzzz"),
    ("disk.img", "'disk.img'", "-drive"),
    ("-m", "-m"),
    ("-display gtk", "gtk", "none"),
    ("-vga std", "std", "none"),
    ("-hda DIR/disk.img", "-hda", "-drive"),
    ("-netdev user,id=n", "-netdev"),
    ("-daemonize", "-daemonize"),
]

# Alone, without BASE.
ALONE = [
    ("-nodefaults -display none -accel kmv", "kmv", "'kvm'"),
    ("-nodefaults -display none -machine accel=nope", "nope"),
    ("-nodefaults -display none -machine accel=qtest -accel qtest", "incompatible"),
    ("-nodefaults -display none -accel tcg", "nothing to boot", "-device loader"),
    ("-nodefaults -display none -enable-kvm -accel qtest",
     'The -accel and "-machine accel=" options are incompatible'),
]


def bzimage(version=0x20C, xloadflags=1, setup_sectors=1, init_size=1 << 20, kernel=4096):
    """A header as in Linux Documentation/arch/x86/boot.rst, and nothing behind it that runs."""
    image = bytearray((setup_sectors + 1) * 512 + kernel)
    image[0x1F1] = setup_sectors
    struct.pack_into("<H", image, 0x1FE, 0xAA55)
    image[0x200:0x202] = b"\xeb\x66"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<I", image, 0x22C, 0x7FFFFFFF)
    image[0x234] = 1
    struct.pack_into("<H", image, 0x236, xloadflags)
    struct.pack_into("<I", image, 0x238, 2047)
    struct.pack_into("<Q", image, 0x258, 1 << 24)
    struct.pack_into("<I", image, 0x260, init_size)
    return bytes(image)


def make_files(folder):
    (folder / "folder").mkdir()
    files = {
        "disk.img": bytes(1 << 20),
        "other.img": bytes(1 << 20),
        "other2.img": bytes(1 << 20),
        "unreadable.img": bytes(512),
        "readonly.img": bytes(512),
        "qcow2.img": b"QFI\xfb\x00\x00\x00\x03" + bytes(504),
        "empty": b"",
        "cut.bin": bytes(1000),
        "rom.bin": bytes(65536),
        "bzimage": bzimage(),
        "bzimage-cut": bzimage()[:0x280],
        "bzimage-old": bzimage(version=0x204),
        "bzimage-32": bzimage(xloadflags=0),
        "bzimage-big": bzimage(init_size=0x7FFFFFFF),
        "elf-cut": b"\x7fELF\x02\x01\x01" + bytes(20),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with open(folder / "huge", "wb") as huge:
        huge.truncate(1 << 30)
    os.chmod(folder / "unreadable.img", 0)
    os.chmod(folder / "readonly.img", 0o444)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.close()


NOBODY = 65534


def fault(command, parts, env, **identity):
    """What is wrong with ferry's answer to the command, or None."""
    try:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, timeout=TIMEOUT, env=env, check=False, **identity)
    except subprocess.TimeoutExpired:
        return f"still runs after {TIMEOUT} s"
    output = run.stdout.decode(errors="replace")
    lines = output.splitlines()
    message, hint = (lines + [""])[0], "\n".join(lines[1:])
    if run.returncode != 1:
        return f"status {run.returncode}: {output[-2000:]}"
    if not message.startswith("ferry: ") or len(lines) > 2 or hint.startswith("ferry:"):
        return f"not one line and a hint: {output[-2000:]}"
    if "(null)" in output or not message[7:].strip():
        return f"unclear: {output}"
    for part in parts:
        text, place = (part[2:], hint) if part.startswith("| ") else (part, message)
        if text not in place:
            return f"{'the hint' if place is hint else 'the message'} lacks '{text}': {output}"
    return None


def check(program, folder, env, results, prefix):
    folder = pathlib.Path(folder)
    make_files(folder)
    identity = {}
    if os.getuid() == 0:
        # Root may read and write everything: nobody tries what must not be allowed.
        identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        folder.chmod(0o755)
        shutil.copy(program, folder / "ferry")

    def one(row, base):
        words, *parts = (text.replace("DIR", str(folder)) for text in row)
        if identity and "Permission denied" in parts:
            return words, fault([folder / "ferry", *base, *words.split(" ")], parts, env,
                                **identity)
        return words, fault([program, *base, *words.split(" ")], parts, env)

    rows = [(row, BASE) for row in TABLE] + [(row, []) for row in ALONE]
    with concurrent.futures.ThreadPoolExecutor(max_workers=3) as pool:
        outcomes = list(pool.map(lambda job: one(*job), rows))
    faults = [f"{words[:100]}: {text}" for words, text in outcomes if text]
    results.case(f"{prefix}/bad-input", f"{len(faults)} of {len(rows)}" if faults else None,
                 f"{len(rows)} command lines")
    return faults
