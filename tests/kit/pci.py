# SPDX-License-Identifier: MIT
"""PCI and virtio-blk (virtio 1.2, modern) through qtest: a driver as small as can be."""
import struct

VENDOR_VIRTIO = 0x1AF4
DEVICE_BLK = 0x1042

COMMAND, STATUS, BAR0, CAPABILITIES, INTERRUPT_LINE = 0x04, 0x06, 0x10, 0x34, 0x3C
COMMAND_IO, COMMAND_MEMORY, COMMAND_MASTER, COMMAND_NO_INTX = 1, 2, 4, 0x400
CAP_MSIX, CAP_VENDOR = 0x11, 0x09


class PortConfig:
    """Configuration space by 0xcf8 and 0xcfc."""

    def __init__(self, qtest):
        self._q = qtest

    def _select(self, devfn, offset):
        self._q.outl(0xCF8, 0x80000000 | devfn << 8 | offset & 0xFC)
        return 0xCFC + (offset & 3)

    def readb(self, devfn, offset): return self._q.inb(self._select(devfn, offset))
    def readw(self, devfn, offset): return self._q.inw(self._select(devfn, offset))
    def readl(self, devfn, offset): return self._q.inl(self._select(devfn, offset))
    def writeb(self, devfn, offset, value): self._q.outb(self._select(devfn, offset), value)
    def writew(self, devfn, offset, value): self._q.outw(self._select(devfn, offset), value)
    def writel(self, devfn, offset, value): self._q.outl(self._select(devfn, offset), value)


class EcamConfig:
    """Configuration space by memory (PCI Express 7.2.2)."""

    def __init__(self, qtest, base):
        self._q = qtest
        self._base = base

    def _at(self, devfn, offset):
        return self._base + (devfn << 12) + offset

    def readb(self, devfn, offset): return self._q.readb(self._at(devfn, offset))
    def readw(self, devfn, offset): return self._q.readw(self._at(devfn, offset))
    def readl(self, devfn, offset): return self._q.readl(self._at(devfn, offset))
    def writeb(self, devfn, offset, value): self._q.writeb(self._at(devfn, offset), value)
    def writew(self, devfn, offset, value): self._q.writew(self._at(devfn, offset), value)
    def writel(self, devfn, offset, value): self._q.writel(self._at(devfn, offset), value)


class Function:
    """A function of bus 0."""

    def __init__(self, config, devfn):
        self._config = config
        self.devfn = devfn

    def __getattr__(self, name):  # readb … writel
        method = getattr(self._config, name)
        return lambda *arguments: method(self.devfn, *arguments)

    def capabilities(self):
        """Pairs of id and offset."""
        at = self.readb(CAPABILITIES) if self.readw(STATUS) & 0x10 else 0
        seen = set()
        while at and at not in seen:
            seen.add(at)
            yield self.readb(at), at
            at = self.readb(at + 1)

    def bar_size(self, index):
        """Size in bytes and the low four bits; the register is as before afterwards."""
        at = BAR0 + 4 * index
        before, flags = self.readl(at), self.readl(at) & 0xF
        self.writel(at, 0xFFFFFFFF)
        mask = self.readl(at)
        self.writel(at, before)
        mask &= ~3 if flags & 1 else ~0xF
        return (-mask) & (0xFFFF if flags & 1 else 0xFFFFFFFF), flags

    def map_bars(self, address):
        """Places all memory BARs from address on; a dictionary of index and address."""
        self.writew(COMMAND, 0)
        places, index = {}, 0
        while index < 6:
            size, flags = self.bar_size(index)
            wide = flags & 7 == 4
            if size and not flags & 1:
                address = (address + size - 1) & -size
                self.writel(BAR0 + 4 * index, address)
                if wide:
                    self.writel(BAR0 + 4 * index + 4, 0)
                places[index] = address
                address += size
            index += 2 if wide else 1
        self.writew(COMMAND, COMMAND_MEMORY | COMMAND_MASTER)
        return places


def find(config, vendor, device):
    """The function of bus 0 with these ids, or None."""
    for devfn in range(256):
        if config.readl(devfn, 0) == vendor | device << 16:
            return Function(config, devfn)
    return None


# Registers of the common configuration structure (virtio 1.2, 4.1.4.3).
DEVICE_FEATURE_SELECT, DEVICE_FEATURE, DRIVER_FEATURE_SELECT, DRIVER_FEATURE = 0, 4, 8, 12
CONFIG_MSIX_VECTOR, NUM_QUEUES, DEVICE_STATUS = 16, 18, 20
QUEUE_SELECT, QUEUE_SIZE, QUEUE_MSIX_VECTOR, QUEUE_ENABLE, QUEUE_NOTIFY_OFF = 22, 24, 26, 28, 30
QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE = 32, 40, 48
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET = 1, 2, 4, 8, 64
F_VERSION_1, F_BLK_FLUSH = 32, 9
IN, OUT, FLUSH = 0, 1, 4


class VirtioBlk:
    """One queue of eight entries at `ram` in guest memory; one request at a time."""

    SIZE = 8

    def __init__(self, qtest, function, bars_at, ram):
        self.q, self.function, self.ram = qtest, function, ram
        self.bars = function.map_bars(bars_at)
        self.used = 0
        self.vectors = None  # message address of each, once MSI-X is on
        places = {}
        for cap, at in function.capabilities():
            if cap == CAP_VENDOR:
                kind, bar = function.readb(at + 3), function.readb(at + 4)
                if kind in (1, 2, 3, 4) and kind not in places:
                    places[kind] = self.bars[bar] + function.readl(at + 8)
                if kind == 2:
                    self._multiplier = function.readl(at + 16)
            elif cap == CAP_MSIX:
                self._msix = at
        self.common, self._notify, self.isr, self.config = (places[kind] for kind in (1, 2, 3, 4))

    def status(self):
        return self.q.readb(self.common + DEVICE_STATUS)

    def reset(self):
        self.q.writeb(self.common + DEVICE_STATUS, 0)
        self.q.wait_for(lambda: self.status() == 0, "the reset's end")
        self.used = 0

    def features(self):
        value = 0
        for half in (0, 1):
            self.q.writel(self.common + DEVICE_FEATURE_SELECT, half)
            value |= self.q.readl(self.common + DEVICE_FEATURE) << 32 * half
        return value

    def start(self, features):
        """Reset, negotiation, queue 0."""
        self.reset()
        self.q.writeb(self.common + DEVICE_STATUS, ACKNOWLEDGE | DRIVER)
        for half in (0, 1):
            self.q.writel(self.common + DRIVER_FEATURE_SELECT, half)
            self.q.writel(self.common + DRIVER_FEATURE, features >> 32 * half & 0xFFFFFFFF)
        self.q.writeb(self.common + DEVICE_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        if not self.status() & FEATURES_OK:
            return False
        self.desc, self.avail, self.ring = self.ram, self.ram + 0x100, self.ram + 0x200
        self.data = self.ram + 0x1000
        self.q.memset(self.ram, 0x1000, 0)
        self.q.writew(self.common + QUEUE_SELECT, 0)
        self.q.writew(self.common + QUEUE_SIZE, self.SIZE)
        if self.vectors:
            self.q.writew(self.common + CONFIG_MSIX_VECTOR, 0)
            self.q.writew(self.common + QUEUE_MSIX_VECTOR, 1)
        self.q.writeq(self.common + QUEUE_DESC, self.desc)
        self.q.writeq(self.common + QUEUE_DRIVER, self.avail)
        self.q.writeq(self.common + QUEUE_DEVICE, self.ring)
        self.q.writew(self.common + QUEUE_ENABLE, 1)
        offset = self.q.readw(self.common + QUEUE_NOTIFY_OFF)
        self.doorbell = self._notify + offset * self._multiplier
        self.q.writeb(self.common + DEVICE_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
        return True

    def enable_msix(self, address):
        """Vectors 0 and 1 write 0x1000 + n to guest memory at address + 4 n."""
        table = self.function.readl(self._msix + 4)
        table = self.bars[table & 7] + (table & ~7)
        self.function.writew(self._msix + 2, 0x8000)
        self.vectors = [address + 4 * n for n in (0, 1)]
        for n, at in enumerate(self.vectors):
            self.q.writel(at, 0)
            for offset, value in ((0, at), (4, 0), (8, 0x1000 + n), (12, 0)):
                self.q.writel(table + 16 * n + offset, value)

    def submit(self, kind, sector, data=b"", size=0):
        """Rings the doorbell for a request; writes `data` or reads `size` bytes."""
        header, status, body = self.ram + 0x300, self.ram + 0x400, self.data
        self.q.write(header, struct.pack("<IIQ", kind, 0, sector))
        self.q.writeb(status, 0xFF)
        chain = [(header, 16, 0)]
        if data:
            self.q.b64write(body, data)
            chain.append((body, len(data), 0))
        elif size:
            chain.append((body, size, 2))
        chain.append((status, 1, 2))
        for n, (address, length, flags) in enumerate(chain):
            last = n == len(chain) - 1
            self.q.write(self.desc + 16 * n, struct.pack("<QIHH", address, length,
                                                         flags | (not last), 0 if last else n + 1))
        index = self.q.readw(self.avail + 2)
        self.q.writew(self.avail + 4 + 2 * (index % self.SIZE), 0)
        self.q.writew(self.avail + 2, index + 1 & 0xFFFF)
        self.q.writew(self.doorbell, 0)

    def finish(self, size=0):
        """Waits for the used ring; status byte, the length it tells, data."""
        self.used = self.used + 1 & 0xFFFF
        self.q.wait_for(lambda: self.q.readw(self.ring + 2) == self.used, "the used ring's index")
        _, length = struct.unpack("<II", self.q.read(
            self.ring + 4 + 8 * ((self.used - 1) % self.SIZE), 8))
        data = self.q.b64read(self.data, size) if size else b""
        return self.q.readb(self.ram + 0x400), length, data

    def request(self, kind, sector, data=b"", size=0):
        self.submit(kind, sector, data, size)
        return self.finish(size)
