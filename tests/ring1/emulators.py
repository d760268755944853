"""Start the ring-1 platform's boot image under QEMU (TCG) and Bochs.

The image writes the guest's serial port to the first serial port, and its own words to the debug console.
A machine is an emulator and a processor model, written EMULATOR:MODEL.
"""
import os
import shutil
import subprocess
import tempfile

EXIT_PORT = 0x501
QEMU_MODELS = ("Skylake-Client", "EPYC", "max")
BOCHS_MODELS = ("corei7_skylake_x", "tigerlake", "ryzen")


def quote(word):
    """A word of the image's command line."""
    return '"%s"' % word.replace("\\", "\\\\").replace('"', '\\"') if not word or set(word) & set(' "\\') else word


def command_line(words):
    return " ".join(["exit-port=%d" % EXIT_PORT] + [quote(word) for word in words])


def qemu(image, model, words, modules, megabytes, serial, log):
    """-> command. `modules`: (path, words) pairs."""
    texts = [(path + " " + text).strip().replace(",", ",,") for path, text in modules]
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", model, "-m", str(megabytes), "-kernel", image,
               "-append", command_line(words), "-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot",
               "-serial", serial, "-debugcon", "file:" + log,
               "-device", "isa-debug-exit,iobase=0x%x,iosize=1" % EXIT_PORT]
    return command + (["-initrd", ",".join(texts)] if texts else [])


def make_iso(image, words, modules, directory):
    """A CD-ROM that boots the image by GRUB; -> its path."""
    tree = os.path.join(directory, "iso")
    os.makedirs(os.path.join(tree, "boot", "grub"))
    shutil.copy(image, os.path.join(tree, "boot", "metal"))
    lines = ["set timeout=0", 'menuentry "ringdown" {',
             "multiboot /boot/metal metal " + " ".join(grub_quote(word) for word in command_line(words).split(" "))]
    for i, (path, text) in enumerate(modules):
        shutil.copy(path, os.path.join(tree, "boot", "module%d" % i))
        lines.append("module /boot/module%d module%d %s" % (i, i, " ".join(grub_quote(w) for w in text.split(" "))))
    with open(os.path.join(tree, "boot", "grub", "grub.cfg"), "w") as f:
        f.write("\n".join(lines + ["boot", "}"]) + "\n")
    iso = os.path.join(directory, "metal.iso")
    subprocess.run(["grub-mkrescue", "-o", iso, tree], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return iso


def grub_quote(word):
    """As GRUB's shell reads it."""
    return "'%s'" % word.replace("'", "'\\''") if word else ""


def bochs(iso, model, megabytes, serial, directory):
    """-> command. The debug console is Bochs' standard output."""
    lines = [
        "megs: %d" % megabytes,
        "cpu: model=%s, count=1, ips=100000000, reset_on_triple_fault=0" % model,
        "romimage: file=/usr/share/bochs/BIOS-bochs-latest",
        "vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest",
        "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14",
        "ata0-master: type=cdrom, path=%s, status=inserted" % iso,
        "boot: cdrom",
        "com1: enabled=1, mode=file, dev=%s" % serial,
        'display_library: rfb, options="timeout=0"',
        "clock: sync=none",
        "port_e9_hack: enabled=1",
        "log: %s/log" % directory,
        "panic: action=fatal",
        "error: action=ignore",
        "info: action=ignore",
        "debug: action=ignore",
    ]
    with open(directory + "/config", "w") as f:
        f.write("\n".join(lines) + "\n")
    with open(directory + "/debugger", "w") as f:
        f.write("continue\n")  # Debian's Bochs starts in its debugger
    return ["bochs-bin", "-q", "-f", directory + "/config", "-rc", directory + "/debugger"]


def run(machine, image, words, modules=(), megabytes=256, timeout=60):
    """-> (exit status or None when it was ended, serial text, the image's own words)"""
    emulator, _, model = machine.partition(":")
    with tempfile.TemporaryDirectory(prefix="ringdown-metal-") as directory:
        serial, log = os.path.join(directory, "serial"), os.path.join(directory, "words")
        if emulator == "qemu":
            command = qemu(image, model, words, modules, megabytes, "file:" + serial, log)
            out = subprocess.DEVNULL
        else:
            command = bochs(make_iso(image, words, modules, directory), model, megabytes, serial, directory)
            out = open(log, "wb")
        try:
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL,
                                    timeout=timeout).returncode
        except subprocess.TimeoutExpired:
            status = None
        return status, read(serial), read(log)


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read().decode("latin-1").replace("\r", "")
    except FileNotFoundError:
        return ""
