"""Files that are no good guest, each bad in one way, and words that the refusal has to hold."""
import collections
import os
import random
import struct

Case = collections.namedtuple('Case', 'path option words')

MB_MAGIC = 0x1badb002


def elf(phdrs=((1, 0x1000, 0x100000, 0x100000, 0x200, 0x400),), size=0x2000, **fields):
    """An ELF32 file for i386 that is right but for `fields`; phdrs: (type, offset, vaddr, paddr, filesz, memsz)."""
    h = dict(cls=1, data=1, type=2, machine=3, entry=0x100010, phoff=52, phentsize=32, phnum=len(phdrs))
    h.update(fields)
    out = b'\x7fELF' + bytes((h['cls'], h['data'], 1)) + bytes(9)
    out += struct.pack('<HHIIIIIHHHHHH', h['type'], h['machine'], 1, h['entry'], h['phoff'], 0, 0, 52, h['phentsize'],
                       h['phnum'], 40, 0, 0)
    for kind, offset, vaddr, paddr, filesz, memsz in phdrs:
        out += struct.pack('<IIIIIIII', kind, offset, vaddr, paddr, filesz, memsz, 7, 0x1000)
    return out.ljust(size, b'\x90')[:size]


def multiboot(flags, addresses=(), size=0x1000, at=0x100):
    header = struct.pack('<III', MB_MAGIC, flags, -(MB_MAGIC + flags) & 0xffffffff)
    header += b''.join(struct.pack('<I', a & 0xffffffff) for a in addresses)
    return (bytes(at) + header).ljust(size, b'\x90')[:size]


def elf_with_multiboot(**fields):
    body = bytearray(elf(**fields))
    struct.pack_into('<III', body, 0x800, MB_MAGIC, 3, -(MB_MAGIC + 3) & 0xffffffff)
    return bytes(body)


def bzimage(**fields):
    """A setup header that is right but for `fields`: {offset: (format, value)} by name."""
    h = bytearray(0x400 + 0x1000)
    places = dict(sects=('<B', 0x1f1, 1), syssize=('<I', 0x1f4, 0x100), flag=('<H', 0x1fe, 0xaa55), jump=('<H', 0x200, 0x6aeb),
                  version=('<H', 0x206, 0x020f), loadflags=('<B', 0x211, 1), code32=('<I', 0x214, 0x100000),
                  initrd_max=('<I', 0x22c, 0x7fffffff), xloadflags=('<H', 0x236, 0), cmdline=('<I', 0x238, 2047),
                  payload=('<I', 0x24c, 0), pref=('<Q', 0x258, 0x100000), init=('<I', 0x260, 0x200000))
    h[0x202:0x206] = b'HdrS'
    for name, (form, at, value) in places.items():
        struct.pack_into(form, h, at, fields.pop(name, value))
    assert not fields, fields
    return bytes(h)


LOAD = (1, 0x1000, 0x100000, 0x100000, 0x200, 0x400)


def load(**changes):
    """The segment of elf() with other fields."""
    names = ('type', 'offset', 'vaddr', 'paddr', 'filesz', 'memsz')
    return tuple(changes.get(n, v) for n, v in zip(names, LOAD))


# (name, content, words); -m is 64M
KERNELS = [
    ('empty', b'', ['empty']),
    ('text', b'hello world\n' * 100, ['not a kernel']),
    ('gzip', b'\x1f\x8b\x08' + bytes(100), ['gzip']),
    ('cpio', b'070701' + b'0' * 200, ['cpio']),
    ('elf-cut-header', elf()[:40], ['truncated']),
    ('elf-cut-segments', elf()[:0x1080], ['truncated']),
    ('elf-64', elf(cls=2), ['64-bit']),
    ('elf-class', elf(cls=7), ['class']),
    ('elf-big-endian', elf(data=2), ['big-endian']),
    ('elf-x86-64', elf(machine=62), ['machine 62']),
    ('elf-arm', elf(machine=40), ['machine 40']),
    ('elf-object', elf(type=1), ['type 1']),
    ('elf-shared', elf(type=3), ['type 3']),
    ('elf-no-headers', elf(phnum=0), ['program headers']),
    ('elf-huge-count', elf(phnum=0xfffe), ['65534']),
    ('elf-escaped-count', elf(phnum=0xffff), ['65535']),
    ('elf-headers-beyond', elf(phoff=0xfffffff0), ['truncated']),
    ('elf-wide-headers', elf(phentsize=56), ['56 bytes']),
    ('elf-many-segments', elf(phdrs=[load(paddr=0x100000 + i * 0x1000) for i in range(65)]), ['more than 64']),
    ('elf-overlap', elf(phdrs=[LOAD, load(paddr=0x100200)]), ['overlap']),
    ('elf-out-of-ram', elf(phdrs=[load(paddr=0x8000000)]), ['-m 64M is too small']),
    ('elf-huge-bss', elf(phdrs=[load(memsz=0x7fffffff)]), ['-m 64M is too small']),
    ('elf-wrap', elf(phdrs=[load(paddr=0xffffff00)]), ['4 GiB']),
    ('elf-wrap-size', elf(phdrs=[load(memsz=0xffffffff)]), ['4 GiB']),
    ('elf-wrap-file', elf(phdrs=[load(offset=0xffffff00)]), ['truncated']),
    ('elf-shrinks', elf(phdrs=[load(memsz=0x100)]), ['room for']),
    ('elf-on-vga', elf(phdrs=[load(paddr=0xa0000)]), ['own memory']),
    ('elf-on-rom', elf(phdrs=[load(paddr=0xff000, memsz=0x2000)]), ['own memory']),
    ('elf-entry', elf(entry=0x500000), ['none of its segments']),
    ('elf-interpreter', elf(phdrs=[LOAD, load(type=3)]), ['interpreter']),
    ('elf-nothing', elf(phdrs=[load(type=2)]), ['nothing to load']),
    ('mb-elf-64', elf_with_multiboot(cls=2), ['64-bit']),
    ('mb-elf-machine', elf_with_multiboot(machine=2), ['machine 2']),
    ('mb-elf-wrap', elf_with_multiboot(phdrs=[load(paddr=0xffffff00)]), ['4 GiB']),
    ('mb-no-elf', multiboot(3), ['no ELF file']),
    ('mb-features', multiboot(0x8003), ['0x8000']),
    ('mb-cut', multiboot(0x10003, (0x100100, 0x100000), size=0x118), ['truncated']),
    ('mb-load-above', multiboot(0x10003, (0x100100, 0x200000, 0, 0, 0x100100)), ['load address']),
    ('mb-load-before', multiboot(0x10003, (0x100100, 0xff000, 0, 0, 0x100100)), ['load address']),
    ('mb-end-below', multiboot(0x10003, (0x100100, 0x100000, 0xff000, 0, 0x100100)), ['load end']),
    ('mb-end-beyond', multiboot(0x10003, (0x100100, 0x100000, 0x900000, 0, 0x100100)), ['truncated']),
    ('mb-bss-below', multiboot(0x10003, (0x100100, 0x100000, 0x100800, 0x100700, 0x100100)), ['BSS end']),
    ('mb-wrap', multiboot(0x10003, (0xfffff900, 0xfffff800, 0, 0, 0xfffff900)), ['4 GiB']),
    ('mb-out-of-ram', multiboot(0x10003, (0x8000100, 0x8000000, 0, 0, 0x8000100)), ['-m 64M is too small']),
    ('mb-huge-bss', multiboot(0x10003, (0x100100, 0x100000, 0, 0xfffff000, 0x100100)), ['too small']),
    ('mb-entry', multiboot(0x10003, (0x100100, 0x100000, 0, 0, 0x50000)), ['none of its segments']),
    ('mb2', struct.pack('<IIII', 0xe85250d6, 0, 16, -(0xe85250d6 + 16) & 0xffffffff).ljust(4096, b'\0'), ['multiboot 2']),
    ('bz-cut', bzimage()[:0x300], ['truncated']),
    ('bz-cut-code', bzimage()[:0x800], ['truncated']),
    ('bz-old', bzimage(version=0x0200), ['2.00']),
    ('bz-low', bzimage(loadflags=0), ['zImage']),
    ('bz-real-mode', bzimage(code32=0), ['real mode']),
    ('bz-64', bzimage(xloadflags=1), ['64-bit']),
    ('bz-huge', bzimage(syssize=0xffffffff), ['truncated']),
    ('bz-needs-much', bzimage(init=0xf0000000), ['-m 64M is too small']),
    ('bz-absurd-address', bzimage(pref=0xffffffffffffffff), ['-m 64M is too small']),
]

ROMS = [
    ('rom-empty', b'', []),
    ('rom-tiny', bytes(4096), []),
    ('rom-odd', bytes(0x10001), []),
    ('rom-huge', bytes(0x80000 + 0x10000), []),
]


def make(directory):
    """Write them all; -> [Case]. Noise of several sizes goes along."""
    rng = random.Random(7)
    kernels = KERNELS + [('noise-%d' % n, rng.randbytes(n), ['not a kernel']) for n in (1, 511, 8192, 100000)]
    cases = []
    for option, files in (('-kernel', kernels), ('-bios', ROMS)):
        for name, content, words in files:
            path = os.path.join(directory, name)
            with open(path, 'wb') as f:
                f.write(content)
            cases.append(Case(path, option, words))
    return cases
