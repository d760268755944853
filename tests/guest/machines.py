"""The machines that test guests boot on: Ringdown, QEMU (TCG) and Bochs.

Each takes the same image, guest command line and initrd, and gives back what the guest wrote on its
serial port. How a run ended is judged by that text: Bochs has no debug-exit port, and exits with
status 1 even when it is told to shut down.

Bochs gets no BIOS and no boot loader: guests/lib/rom.S stands where the BIOS would, and Bochs itself
loads the guest's program and boot parameters into memory before it starts. A topic takes it a few
tenths of a second.
"""
import collections
import os
import re
import struct
import subprocess
import tempfile
import time

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

    def boot(self, image, words=(), initrd=None, timeout=60):
        words = ([self.word] if self.word else []) + list(words)
        with tempfile.TemporaryDirectory(prefix="ringdown-guest-") as directory:
            serial = os.path.join(directory, "serial")
            command = self.command(image, " ".join(words), initrd, serial, directory)
            start = time.monotonic()
            try:
                done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
                status, errors = done.returncode, done.stderr
            except subprocess.TimeoutExpired as late:
                status, errors = None, late.stderr or b""
            seconds = time.monotonic() - start
            try:
                with open(serial, "rb") as f:
                    text = f.read().decode(errors="replace").replace("\r", "")
            except FileNotFoundError:
                text = ""
            errors = errors.decode(errors="replace") + self.log(directory)
        return Outcome([line for line in text.split("\n") if line], status, errors, seconds)

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
        images = [] if is_rom(image) else self._images(image, words, initrd, directory)
        rom = image if is_rom(image) else os.path.join(os.path.dirname(os.path.abspath(image)), "bochs.rom")
        lines = [
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
        lines += ["optramimage%d: file=%s, address=0x%x" % (i + 1, file, address) for i, (file, address) in enumerate(images)]
        with open(directory + "/config", "w") as f:
            f.write("\n".join(lines) + "\n")
        with open(directory + "/debugger", "w") as f:
            f.write("continue\n")  # Debian's Bochs starts in its debugger
        return ["bochs-bin", "-q", "-f", directory + "/config", "-rc", directory + "/debugger"]

    def _images(self, image, words, initrd, directory):
        """-> (file, physical address) of what a boot loader would put into memory; see "The Linux/x86 Boot
        Protocol" for the fields."""
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
        parts.insert(0, (bytes(params) + words.encode() + b"\0", self.PARAMS))
        images = []
        for i, (part, address) in enumerate(parts):
            path = "%s/image%d" % (directory, i)
            with open(path, "wb") as f:
                f.write(part)
            images.append((path, address))
        return images

    def log(self, directory):
        try:
            with open(directory + "/log", errors="replace") as f:
                return "".join(line for line in f if re.match(r"\d{11}[ep]", line))
        except FileNotFoundError:
            return ""
