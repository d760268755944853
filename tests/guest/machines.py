"""The machines that test guests boot on: Ringdown, QEMU (TCG) and Bochs.

Each takes the same image, guest command line and initrd, and gives back what the guest wrote on its
serial port. How a run ended is judged by that text: Bochs has no debug-exit port, and exits with
status 1 even when it is told to shut down.

Bochs gets no BIOS and no boot loader: guests/lib/rom.S stands where the BIOS would and reads the guest's
program, boot parameters and initrd from a disk that is made for the run. A topic takes it a few tenths of a
second.
"""
import collections
import os
import re
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "ring1"))
import emulators

DEBUG_EXIT = "isa-debug-exit,iobase=0xf4,iosize=4"
MEGABYTES = 64

# lines: the guest's; status: exit status, None when it was ended after `timeout` seconds.
Outcome = collections.namedtuple("Outcome", "lines status errors seconds")


def is_rom(image):
    """A firmware image of guests/firmware, which runs from the reset vector and may reset the machine."""
    return image.endswith(".rom")


def what(image):
    return ["-bios", image] if is_rom(image) else ["-kernel", image, "-no-reboot"]


class Machine:
    """One of the machines. `word` is on the guest's command line there. `cpu` is a model of Ringdown's, for which
    each has its own nearest."""
    name = word = None
    cpu = None

    def command(self, image, words, initrd, serial, directory):
        raise NotImplementedError

    def boot(self, image, words=(), initrd=None, timeout=60, stall=None):
        """-> Outcome. `stall`: end it as well when it has printed nothing for so many seconds."""
        words = ([self.word] if self.word else []) + list(words)
        with tempfile.TemporaryDirectory(prefix="ringdown-guest-") as directory:
            serial = os.path.join(directory, "serial")
            command = self.command(image, " ".join(words), initrd, serial, directory)
            start = time.monotonic()
            with open(os.path.join(directory, "stderr"), "w+b") as err:
                child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err)
                status = self._wait(child, serial, timeout, stall)
                err.seek(0)
                errors = err.read()
            seconds = time.monotonic() - start
            try:
                with open(serial, "rb") as f:
                    text = f.read().decode(errors="replace").replace("\r", "")
            except FileNotFoundError:
                text = ""
            errors = errors.decode(errors="replace") + self.log(directory)
        return Outcome([line for line in text.split("\n") if line], status, errors, seconds)

    @staticmethod
    def _wait(child, serial, timeout, stall):
        """-> exit status; None when the child had to be killed."""
        end = time.monotonic() + timeout
        size, quiet_since = 0, time.monotonic()
        while True:
            now = time.monotonic()
            if stall and os.path.exists(serial) and os.path.getsize(serial) != size:
                size, quiet_since = os.path.getsize(serial), now
            try:
                return child.wait(timeout=0.05 if not stall else 0.2)
            except subprocess.TimeoutExpired:
                if now >= end or (stall and now - quiet_since > stall):
                    child.kill()
                    child.wait()
                    return None

    def log(self, directory):
        """What the machine wrote elsewhere about a run that went wrong."""
        return ""


class Ringdown(Machine):
    name = "ringdown"

    def __init__(self, path, accel=None, cpu=None):
        self.path, self.accel, self.cpu = path, accel, cpu

    def command(self, image, words, initrd, serial, directory):
        command = [self.path, "-m", "%dM" % MEGABYTES, *what(image), "-serial", "file:" + serial, "-device", DEBUG_EXIT]
        command += ["-append", words] if words and not is_rom(image) else []
        command += ["-initrd", initrd] if initrd else []
        command += ["-accel", "bt," + self.accel] if self.accel else []
        command += ["-cpu", self.cpu] if self.cpu else []
        return command


class Ring1(Machine):
    """Ringdown's boot image of the ring-1 platform, itself under QEMU or Bochs (`host` is EMULATOR:MODEL)."""
    HOST_MEGABYTES = 256

    def __init__(self, image, host="qemu:max", accel=None, cpu=None):
        self.name = "ring1-" + host.partition(":")[0]
        self.image, self.host, self.accel, self.cpu = image, host, accel, cpu

    def command(self, image, words, initrd, serial, directory):
        if is_rom(image):
            raise SystemExit("the ring-1 image has no firmware: %s" % image)
        options = ["-m", "%dM" % MEGABYTES, "-no-reboot", "-device", DEBUG_EXIT]
        options += ["-append", words] if words else []
        options += ["-accel", "bt," + self.accel] if self.accel else []
        options += ["-cpu", self.cpu] if self.cpu else []
        modules = [(image, "")] + ([(initrd, "")] if initrd else [])
        emulator, _, model = self.host.partition(":")
        if emulator == "qemu":
            return emulators.qemu(self.image, model, options, modules, self.HOST_MEGABYTES, "file:" + serial,
                                  os.path.join(directory, "words"))
        iso = emulators.make_iso(self.image, options, modules, directory)
        return emulators.bochs(iso, model, self.HOST_MEGABYTES, serial, directory)

    def log(self, directory):
        return emulators.read(os.path.join(directory, "words"))


class Qemu(Machine):
    name = word = "qemu"
    MODELS = {"pentium4": "qemu32"}  # others by the same name

    def __init__(self, cpu=None):
        self.cpu = self.MODELS.get(cpu, cpu or "max")

    def command(self, image, words, initrd, serial, directory):
        command = ["qemu-system-i386", "-accel", "tcg", "-cpu", self.cpu, "-m", str(MEGABYTES), *what(image),
                   "-display", "none", "-serial", "file:" + serial, "-device", DEBUG_EXIT]
        command += [] if is_rom(image) else ["-append", words]
        return command + (["-initrd", initrd] if initrd else [])


class Bochs(Machine):
    name = word = "bochs"
    MODEL = "corei7_sandy_bridge_2600k"  # what Ringdown's `max` offers, and more
    MODELS = {"pentium": "pentium_mmx", "pentium2": "p2_klamath", "pentium3": "p3_katmai", "pentium4": "p4_willamette",
              "max": "athlon64_clawhammer", "qemu32": "p4_willamette", "486": "pentium"}
    PARAMS, COMMAND_LINE, PROGRAM, INITRD = 0x90000, 0x91000, 0x100000, 0x2000000

    def __init__(self, cpu=None):
        self.cpu = self.MODELS[cpu] if cpu else self.MODEL

    def command(self, image, words, initrd, serial, directory):
        rom = image if is_rom(image) else os.path.join(os.path.dirname(os.path.abspath(image)), "bochs.rom")
        disk = [] if is_rom(image) else [
            "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14",
            "ata0-master: type=disk, mode=flat, path=%s, cylinders=%d, heads=16, spt=63" % self._disk(image, words, initrd,
                                                                                                      directory + "/disk")]
        lines = disk + [
            "megs: %d" % MEGABYTES,
            "cpu: model=%s, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0" % self.cpu,
            "romimage: file=%s" % rom,
            "vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest",
            "vga: extension=none",
            'display_library: rfb, options="timeout=0"',
            "com1: enabled=1, mode=file, dev=%s" % serial,
            "clock: sync=none",
            "log: %s/log" % directory,
            "panic: action=fatal",
            "error: action=report",
            "info: action=ignore",
            "debug: action=ignore",
        ]
        with open(directory + "/config", "w") as f:
            f.write("\n".join(lines) + "\n")
        with open(directory + "/debugger", "w") as f:
            f.write("continue\n")  # Debian's Bochs starts in its debugger
        return ["bochs-bin", "-q", "-f", directory + "/config", "-rc", directory + "/debugger"]

    def _disk(self, image, words, initrd, path):
        """Write the disk that guests/lib/rom.S reads; -> (path, cylinders). See "The Linux/x86 Boot Protocol" for
        the fields."""
        with open(image, "rb") as f:
            data = f.read()
        size = (data[0x1F1] + 1) * 512
        params = bytearray(data[:size].ljust(self.COMMAND_LINE - self.PARAMS, b"\0"))
        params[0x210] = 0xFF  # a loader without a number
        struct.pack_into("<I", params, 0x228, self.COMMAND_LINE)
        parts = [(data[size:], self.PROGRAM)]
        if initrd:
            with open(initrd, "rb") as f:
                parts.append((f.read(), self.INITRD))
            struct.pack_into("<II", params, 0x218, self.INITRD, len(parts[1][0]))
        parts.append((bytes(params) + words.encode() + b"\0", self.PARAMS))
        table, sectors = struct.pack("<I", self.PARAMS), 1
        for part, address in parts:
            table += struct.pack("<III", sectors, (len(part) + 511) // 512, address)
            sectors += (len(part) + 511) // 512
        cylinders = (sectors + 1007) // 1008
        with open(path, "wb") as f:
            f.write(table.ljust(512, b"\0"))
            for part, _ in parts:
                f.write(part + bytes(-len(part) % 512))
            f.truncate(cylinders * 1008 * 512)
        return path, cylinders

    def log(self, directory):
        try:
            with open(directory + "/log", errors="replace") as f:
                return "".join(line for line in f if re.match(r"\d{11}[ep]", line))
        except FileNotFoundError:
            return ""
