#!/usr/bin/env python3
"""Is the engine freestanding? Looks at what the compiler made, not at what the sources say.

symbols  joins the engine's libraries to one object (ld -r): .data and .bss are empty, and all that is
         left undefined is a function of platform/platform.h, a memory helper or Zydis's decoder.
vectors  disassembles them: no instruction names an x87, MMX, SSE or AVX register or their state, except in
         the functions that the allow list names. The guest's vector state stays in the host's registers
         while engine code runs, so one stray use corrupts the guest.
headers  compiles each of the engine's headers alone, with the engine's flags.
program  the memory helpers are defined in the program itself and use no vector registers: light code
         calls them, and the C library's versions do.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

MEMORY = {'memcpy', 'memmove', 'memset', 'memcmp'}
DECODER = {'ZydisDecoderInit', 'ZydisDecoderEnableMode', 'ZydisDecoderDecodeInstruction',
           'ZydisDecoderDecodeOperands', 'ZydisDecoderDecodeFull', 'ZydisDecoderDecodeBuffer',
           'ZydisMnemonicGetString'}     # a look-up in the decoder's own name table
# Symbols that the linker itself provides.
LINKER = {'_GLOBAL_OFFSET_TABLE_'}
ENGINE = ('base', 'decoder', 'bt', 'tcache', 'mmu', 'monitor', 'platform')
VECTOR = re.compile(r'%(xmm|ymm|zmm|mm|k)\d|%st\b|'
                    r'^((fx|x)(save|rstor)\w*|f[a-z]\w*|emms|v?ldmxcsr|v?stmxcsr|vzero\w+)\b')


def output(*argv):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout.decode()


def platform_functions(header):
    with open(header) as f:
        text = re.sub(r'/\*.*?\*/', '', f.read(), flags=re.S)
    return set(re.findall(r'\b(\w+)\s*\([^;{}]*\)\s*;', text))


def symbols(args):
    faults = []
    with tempfile.TemporaryDirectory() as tmp:
        joined = os.path.join(tmp, 'engine.o')
        subprocess.run([args.ld, '-r', '--whole-archive', '-o', joined] + args.files, check=True)
        for line in output('objdump', '-h', '-w', joined).splitlines():
            m = re.match(r'\s*\d+ (\S+)\s+([0-9a-f]+) ', line)
            if not m or int(m.group(2), 16) == 0:
                continue
            name = m.group(1)
            if re.match(r'\.(data|bss|tdata|tbss|init_array|fini_array|ctors|dtors)($|\.)', name) and \
                    not name.startswith('.data.rel.ro'):
                faults.append('section %s has %d bytes%s' % (name, int(m.group(2), 16), who(joined, name)))
        allowed = platform_functions(args.platform) | MEMORY | DECODER | LINKER
        for line in output('nm', '-u', joined).splitlines():
            name = line.split()[-1]
            if name not in allowed:
                faults.append('undefined symbol %s%s' % (name, users(args.files, name)))
    return faults


def who(joined, section):
    """The objects in a section, for the message."""
    names = [line.split()[-1] for line in output('objdump', '-t', joined).splitlines()
             if ' O %s\t' % section in line]
    return ': ' + ', '.join(names[:8]) if names else ''


def users(files, name):
    found = []
    for path in files:
        member = ''
        for line in output('nm', path).splitlines():
            if line.endswith(':'):
                member = line[:-1]
            elif re.match(r'\s+U %s$' % re.escape(name), line):
                found.append(member)
    return ' (in %s)' % ', '.join(found[:6]) if found else ''


def vector_uses(listing, allowed):
    function, faults = '?', []
    for line in listing.splitlines():
        m = re.match(r'[0-9a-f]+ <(.+)>:$', line)
        if m:
            function = m.group(1)
            continue
        m = re.match(r'\s+[0-9a-f]+:\s+(.*)$', line)
        if m and VECTOR.search(m.group(1).split('#')[0].split('<')[0]) and \
                function.split('.')[0] not in allowed:
            faults.append('%s: %s' % (function, ' '.join(m.group(1).split())))
    return faults


def vectors(args):
    allowed = set()
    with open(args.allow) as f:
        for line in f:
            if line.strip() and not line.startswith('#'):
                allowed.add(line.split()[0])
    faults = []
    for path in args.files:
        listing = output('objdump', '-d', '--no-show-raw-insn', path)
        faults += ['%s: %s' % (os.path.basename(path), f) for f in vector_uses(listing, allowed)]
    return faults


def headers(args):
    faults = []
    for module in ENGINE:
        for folder, dirs, names in os.walk(os.path.join(args.root, module)):
            if module == 'platform':
                dirs.clear()
            for name in sorted(names):
                # A list is a body for macros; it is no header of its own.
                if not name.endswith('.h') or name.endswith('_list.h') or name == 'vcpu_layout.h':
                    continue
                path = os.path.relpath(os.path.join(folder, name), args.root)
                done = subprocess.run(
                    [args.cc, '-std=c11', '-ffreestanding', '-mgeneral-regs-only', '-fsyntax-only', '-Wall', '-Wextra',
                     '-Werror', '-Wno-unused-function', '-I', args.root, '-x', 'c', '-'],
                    input=('#include "%s"\n' % path).encode(), stderr=subprocess.PIPE)
                if done.returncode != 0:
                    faults.append('%s: %s' % (path, done.stderr.decode().strip().splitlines()[0]))
    return faults


def program(args):
    path, faults = args.files[0], []
    undefined = {line.split()[-1].split('@')[0] for line in output('nm', '-D', '-u', path).splitlines() if line.split()}
    for name in sorted(MEMORY & undefined):
        faults.append('%s comes from the C library' % name)
    for name in sorted(MEMORY - undefined):
        listing = output('objdump', '-d', '--no-show-raw-insn', '--disassemble=' + name, path)
        faults += vector_uses(listing, set())
    return faults


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=('symbols', 'vectors', 'headers', 'program'))
    p.add_argument('files', nargs='*')
    p.add_argument('--platform')
    p.add_argument('--allow')
    p.add_argument('--ld', default='ld')
    p.add_argument('--cc', default='cc')
    p.add_argument('--root')
    args = p.parse_intermixed_args()
    faults = globals()[args.what](args)
    for fault in faults:
        print('check_engine: ' + fault)
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
