"""What QEMU and Bochs are known to do otherwise than the manual says, case by case. See tests/diff/modes.

Each rule looks at the fields in which a machine differs from Ringdown and gives the manual section that decides, or None.
QEMU_WHERE_BOCHS_AGREES are wide rules for what QEMU does not have; they count only where Bochs has in all those fields
what Ringdown has. Every other rule is for one instruction or one kind of state.

"SDM" is Intel's "64 and IA-32 Architectures Software Developer's Manual". Where a rule says that the manual does not
say, that is its vol. 3A, "Priority Among Simultaneous Exceptions and Interrupts": the faults of one instruction are one
class, and within a class the order is the implementation's.
"""

import itertools
import re

RF = 0x10000
DF, TS, NP, SS, GP, PF, MF, AC, XM, UD, NM, DB, BR = 8, 10, 11, 12, 13, 14, 16, 17, 19, 6, 7, 1, 5


def same_place(ours, theirs):
    return (ours["cs"], ours["eip"]) == (theirs["cs"], theirs["eip"])


def mnemonic(case):
    words = case["text"].split()
    while words and words[0] in ("lock", "rep", "repe", "repne", "repz", "repnz"):
        words.pop(0)
    return words[0] if words else ""


PREFIXES = {"26", "2e", "36", "3e", "64", "65", "66", "67", "f0", "f2", "f3"}


def prefixes(case):
    code = [case["code"][i:i + 2] for i in range(0, len(case["code"]), 2)]
    return set(itertools.takewhile(PREFIXES.__contains__, code))


def is_address16(case):
    return (case["mode"] == "pm32") == ("67" in prefixes(case))


def is_operand16(case):
    return (case["mode"] == "pm32") == ("66" in prefixes(case))


def offset(case):
    """Of the memory operand in its segment, or None."""
    found = re.search(r"\[([^]]*)\]", case["text"])
    if not found:
        return None
    total = 0
    for sign, term in re.findall(r"([+-]?)([^+-]+)", found.group(1)):
        name, _, scale = term.partition("*")
        wide = name if name in case else "e" + name
        value = case[wide] * int(scale or 1) if wide in case else int(name, 16)
        total += -value if sign == "-" else value
    return total & (0xffff if is_address16(case) else 0xffffffff)


IMAGE_BYTES = {"fnstenv": 28, "fldenv": 28, "fnsave": 108, "frstor": 108}  # 14 less with 16-bit operands


def wraps(case, size):
    """Do `size` bytes at the operand's 16-bit offset go over the end of 64 KiB?"""
    at = offset(case)
    return is_address16(case) and at is not None and at + size > 0x10000


def image_bytes(case):
    return IMAGE_BYTES[mnemonic(case)] - (14 if is_operand16(case) else 0)


# ---- QEMU ---------------------------------------------------------------------------------------------------------

def qemu_restart(case, ours, theirs, names):
    if ours["vector"] == PF == theirs["vector"] and same_place(ours, theirs):
        if set(names) <= {"eflags", "memory"} and mnemonic(case) in ("rcl", "rcr", "sidt", "sgdt", "enter", "pusha", "pushad"):
            return 'SDM vol. 3A, "Program or Task Restart": QEMU changes state before it faults'
        if set(names) <= {"eflags", "cr2"} and mnemonic(case) in ("fbld", "fbstp") and ours["eflags"] ^ theirs["eflags"] in (0, RF):
            return 'SDM vol. 3A, "Interrupt 14": which part of a number of ten bytes is read first is not said'
        if set(names) <= {"eflags", "cr2", "error"} and mnemonic(case).startswith("cmps"):
            return 'SDM vol. 2A, "CMPS": which operand is read first is not said'


def qemu_rf(case, ours, theirs, names):
    if names == ["eflags"] and ours["eflags"] ^ theirs["eflags"] == RF:
        return 'SDM vol. 3B, "Instruction-Breakpoint Exception Condition": QEMU leaves RF clear in the frame of a fault'


def qemu_limits(case, ours, theirs, names):
    if ours["vector"] in (GP, SS) and ours["error"] == 0 and names != ["memory"]:
        return 'SDM vol. 3A, "Limit Checking", "Type Checking": QEMU checks neither when memory is accessed'


def qemu_alignment(case, ours, theirs, names):
    if ours["vector"] == AC:
        return 'SDM vol. 3A, "Interrupt 17": QEMU checks no alignment'


def qemu_rmw(case, ours, theirs, names):
    if ours["vector"] == PF == theirs["vector"] and ours["error"] & ~theirs["error"] & 2 and same_place(ours, theirs):
        return 'SDM vol. 3A, "Page-Fault Exceptions": QEMU faults at the read of a read-modify-write'


FPU_STATE = {"fcw", "fsw", "ftw", "mxcsr", "fpu"}
VECTOR_OR_X87 = re.compile(r"^(f\w+|ldmxcsr|stmxcsr|emms|.*(ps|pd|ss|sd|pi|dq|qu|hw|lw|uw|uq|si2\w+)|p[a-z]+|mov[a-z]+)$")


def is_fpu_insn(case):
    return bool(VECTOR_OR_X87.match(mnemonic(case))) and mnemonic(case) not in ("push", "pop", "pusha", "popa", "pushf", "popf")


def qemu_fpu(case, ours, theirs, names):
    allowed = FPU_STATE | {"eflags", "memory"}
    if is_fpu_insn(case) and set(names) <= allowed and same_place(ours, theirs):
        return 'SDM vol. 1, ch. 8 to 11: QEMU\'s x87 and SSE status, tags, stack faults, pointers, invalid operands'
    if set(names) & FPU_STATE and set(names) <= FPU_STATE | {"eflags", "cr2"}:
        return 'SDM vol. 3A, "Interrupt 14": QEMU changes x87 state before an MMX instruction faults'


def qemu_lock(case, ours, theirs, names):
    if ours["vector"] == UD and "f0" in case["code"]:
        return 'SDM vol. 2A, "LOCK": QEMU does not raise #UD everywhere'


def qemu_like_bochs(case, ours, theirs, names):
    for rule in (bochs_rep_trap, bochs_string_flags, bochs_arpl, bochs_pointer_order,
                 bochs_masked_store):
        why = rule(case, ours, theirs, names)
        if why:
            return why


def qemu_odd_opcodes(case, ours, theirs, names):
    if mnemonic(case) == "test" and theirs["vector"] == UD:
        return 'SDM vol. 2D, app. A: F6 /1 and F7 /1 are not there; processors and Bochs take them for TEST'
    if mnemonic(case) == "bswap":
        return 'SDM vol. 2A, "BSWAP": a 16-bit operand is undefined; Ringdown and Bochs do as processors do'
    if mnemonic(case) in ("nop", "prefetchw") and theirs["vector"] == UD:
        return 'SDM vol. 2D, app. A: 0F 18 with a register is a reserved NOP'
    if mnemonic(case) == "lar" and not set(names) & {"vector", "eip"}:
        return 'SDM vol. 2A, "LAR": bits 16 to 19 are undefined'
    if mnemonic(case) == "ret" and names == ["esp"]:
        return 'SDM vol. 2B, "RET": the stack pointer is as wide as the stack segment; QEMU cuts it to the operand size'
    if mnemonic(case) == "enter" and set(names) <= {"ebp", "memory"} and ours["ebp"] == theirs["ebp"] & 0xffff:
        return 'SDM vol. 2A, "ENTER": the frame pointer is ESP after a push on a 16-bit stack, which wraps; QEMU\'s does not'
    if mnemonic(case) == "clflush" and ours["vector"] == PF:
        return 'SDM vol. 2A, "CLFLUSH": QEMU does not fault'


def qemu_int1(case, ours, theirs, names):
    if ours["vector"] == DB and theirs["vector"] == UD:
        return 'SDM vol. 2A, "INT1": QEMU takes F1 for undefined'


FAR_POINTERS = ("lds", "les", "lfs", "lgs", "lss", "jmp", "call", "bound")


def qemu_limit_of_insn(case, ours, theirs, names):
    """A limit that Ringdown holds and QEMU does not, where Bochs differs from both in how far it came."""
    if ours["vector"] not in (GP, SS, AC) or ours["error"] or not same_place(ours, case_start(case)):
        return None
    name = mnemonic(case)
    if name in FAR_POINTERS and wraps(case, 8) or name in IMAGE_BYTES and wraps(case, image_bytes(case)):
        return 'SDM vol. 3A, "Limit Checking": the operand goes over the end of 64 KiB, which QEMU does not see'
    if name[:4] in ("scas", "cmps") and "rep" in case["text"]:
        return 'SDM vol. 3A, "Limit Checking", which QEMU does not do; vol. 2B, "REP": Bochs keeps the flags of the last iteration'
    if name == "enter":
        return 'SDM vol. 2A, "ENTER": #SS and #AC of its pushes, which QEMU does not check'
    if name in ("pusha", "pushad", "pushal"):
        return 'SDM vol. 2B, "PUSHA": #SS and #AC of its pushes, which QEMU does not check'
    if name in ("sidt", "sgdt") and ours["vector"] != AC:
        return 'SDM vol. 2B, "SGDT", "SIDT": #GP and #SS of a store outside the segment, which QEMU does not check'
    if name == "call" and ours["vector"] == GP:
        return 'SDM vol. 2A, "CALL": #GP of a target outside the code segment, which QEMU does not check'


def qemu_fetch_limit(case, ours, theirs, names):
    if ours["vector"] in (GP, DF) and ours["eip"] == 0x10000 and theirs["eip"] != ours["eip"]:
        return 'SDM vol. 3A, "Limit Checking": QEMU fetches on behind the end of a code segment'


def qemu_stack_limit(case, ours, theirs, names):
    if ours["vector"] == DF != theirs["vector"]:
        return 'SDM vol. 3A, "Limit Checking": a frame outside SS is a double fault; QEMU wraps it'


def qemu_order(case, ours, theirs, names):
    if is_fpu_insn(case) and (ours["vector"] in (NM, UD) or theirs["vector"] in (NM, UD, GP) and ours["vector"] in (PF, SS)):
        return 'SDM vol. 3A, "Priority Among Concurrent Events": QEMU\'s order of #UD, #NM, #GP, #PF'


QEMU = [qemu_rf, qemu_like_bochs, qemu_restart, qemu_rmw, qemu_odd_opcodes, qemu_limit_of_insn, qemu_fetch_limit,
        qemu_stack_limit]
QEMU_WHERE_BOCHS_AGREES = [qemu_int1, qemu_limits, qemu_alignment, qemu_fpu, qemu_lock, qemu_order]


# ---- Bochs --------------------------------------------------------------------------------------------------------

def bochs_df_rf(case, ours, theirs, names):
    if names == ["eflags"] and ours["vector"] == DF and ours["eflags"] ^ theirs["eflags"] == RF:
        return 'SDM vol. 3B, "Instruction-Breakpoint Exception Condition": it says nothing of RF in the TSS after #DF'


def bochs_pointer_order(case, ours, theirs, names):
    if set(names) <= {"cr2", "error"} and ours["vector"] == PF and \
            mnemonic(case) in FAR_POINTERS + ("ret", "iret", "iretd"):
        return 'SDM vol. 3A, "Interrupt 14": which part of a far pointer is read first is not said'


def bochs_wrapped_image(case, ours, theirs, names):
    if ours["vector"] not in (GP, SS) or not same_place(ours, case_start(case)):
        return None
    if mnemonic(case) in IMAGE_BYTES and (wraps(case, image_bytes(case)) or theirs["vector"] == PF):
        return 'SDM vol. 3A, "Limit Checking": Bochs checks the fields of an image one by one and wraps them'


def bochs_masked_store(case, ours, theirs, names):
    if mnemonic(case) in ("maskmovdqu", "maskmovq") and ours["vector"] in (GP, SS) and same_place(ours, case_start(case)):
        return 'SDM vol. 2B, "MASKMOVDQU": whether bytes that are not written fault is the implementation\'s'


def bochs_wrapped_fields(case, ours, theirs, names):
    if mnemonic(case) in IMAGE_BYTES and wraps(case, image_bytes(case)) and set(names) <= {
            "memory", "vector", "error", "eip", "eflags", "cr2", "fcw", "fsw", "ftw", "fpu"}:
        return 'SDM vol. 2A, ch. 2: the offset is 16 bits, the operand goes on behind it; Bochs wraps each field at 64 KiB'


def bochs_popf(case, ours, theirs, names):
    if case["mode"] == "v86" and mnemonic(case) in ("popf", "popfd", "iret", "iretd") and ours["vector"] == GP and \
            theirs["vector"] in (SS, PF) and same_place(ours, theirs):
        return 'SDM vol. 2B, "POPF", vol. 2A, "IRET": IOPL is checked before the stack is read'


def bochs_image_order(case, ours, theirs, names):
    if names == ["cr2"] and mnemonic(case) in ("fnstenv", "fnsave", "fldenv", "frstor", "cmpxchg8b", "movups", "movupd", "movdqu"):
        return 'SDM vol. 3A, "Interrupt 14": where in a long operand CR2 points is not said'


def bochs_rep_trap(case, ours, theirs, names):
    if names == ["eflags"] and ours["vector"] == DB and ours["eflags"] ^ theirs["eflags"] == RF and case["efl"] & 0x100:
        return 'SDM vol. 3B, "Instruction-Breakpoint Exception Condition": RF is set for a trap between two iterations of REP'


def bochs_string_flags(case, ours, theirs, names):
    if names != ["eflags"] or mnemonic(case)[:4] not in ("scas", "cmps"):
        return None
    if ours["vector"] in (PF, GP, SS) and "rep" in case["text"]:
        return 'SDM vol. 2B, "REP": a fault restores EFLAGS to what it was before the first iteration'
    if case["efl"] & 0x100:
        return 'SDM vol. 2B, "REP": what EFLAGS a trap between two iterations of SCAS and CMPS sees is not said'


def bochs_enter(case, ours, theirs, names):
    if names == ["memory"] and mnemonic(case) == "enter" and ours["vector"] in (PF, GP, SS, AC):
        return 'SDM vol. 3B, "Fault Handling Effects on the Stack": what ENTER has pushed below the stack pointer when it faults'


def bochs_call(case, ours, theirs, names):
    if names == ["memory"] and mnemonic(case) == "call" and ours["vector"] == GP:
        return 'SDM vol. 3B, "Fault Handling Effects on the Stack": P6 processors hold the target against the limit before anything is pushed; Bochs pushes first'


def bochs_wrapped_pointer(case, ours, theirs, names):
    if mnemonic(case) not in FAR_POINTERS or not wraps(case, 8):
        return None
    if mnemonic(case)[0] == "l" and len(names) == 1:
        return 'SDM vol. 2A, ch. 2: the offset is 16 bits, the operand goes on behind it; Bochs wraps its selector at 64 KiB'
    if ours["vector"] in (GP, SS) and same_place(ours, case_start(case)):
        return 'SDM vol. 3A, "Limit Checking": Bochs checks the parts of a far pointer one by one and wraps between them'


def bochs_table_store(case, ours, theirs, names):
    if names == ["memory"] and mnemonic(case) in ("sidt", "sgdt") and ours["vector"] in (GP, SS, PF):
        return 'SDM vol. 3A, "Program or Task Restart": Bochs stores the limit before the base faults'
    if mnemonic(case) in ("sidt", "sgdt") and ours["vector"] in (GP, SS) and theirs["vector"] == PF and same_place(ours, theirs):
        return 'SDM vol. 3A, "Priority Among Concurrent Events": the limit of the whole operand comes first; Bochs goes by fields'
    if mnemonic(case) in ("sidt", "sgdt") and ours["vector"] in (GP, SS) and wraps(case, 6) and same_place(ours, case_start(case)):
        return 'SDM vol. 2B, "SGDT", "SIDT": any part outside 64 KiB is #GP or #SS; Bochs stores the base at the wrapped offset'


def bochs_table_alignment(case, ours, theirs, names):
    if mnemonic(case) in ("sidt", "sgdt") and theirs["vector"] == AC:
        return 'SDM vol. 3A, "Alignment Requirements by Data Type": a pseudo-descriptor is aligned at 4; Bochs looks at its base'


def bochs_arpl(case, ours, theirs, names):
    if mnemonic(case) == "arpl" and theirs["vector"] in (PF, GP, SS) and \
            (theirs["vector"] != ours["vector"] or ours["error"] ^ theirs["error"] == 2):
        return 'SDM vol. 2A, "ARPL": it reads first and writes only what it changes; the host decides (tests/diff --only arpl)'


def bochs_push_order(case, ours, theirs, names):
    if mnemonic(case) in ("pusha", "pushad", "pushal", "enter") and (ours["vector"], theirs["vector"]) == (SS, AC) and \
            same_place(ours, theirs):
        return 'SDM vol. 3A, "Priority Among Concurrent Events": #SS comes before #AC; Bochs takes an instruction\'s pushes one by one'


def bochs_push_segment(case, ours, theirs, names):
    if names == ["memory"] and re.search(r"push [ecsdfg]s$", case["text"]):
        return 'SDM vol. 3B, "Selector Pushes and Pops": a segment register as two bytes or as four, by processor'


def bochs_x87_restart(case, ours, theirs, names):
    if set(names) <= {"fsw", "cr2"} and mnemonic(case).startswith("f") and ours["vector"] in (PF, GP, SS):
        return 'SDM vol. 3A, "Program or Task Restart": Bochs sets x87 status before a store faults; the host does not'


BOCHS = [bochs_string_flags, bochs_enter, bochs_call, bochs_wrapped_fields, bochs_table_alignment, bochs_rep_trap,
         bochs_wrapped_pointer, bochs_table_store, bochs_image_order, bochs_arpl, bochs_push_order, bochs_push_segment,
         bochs_x87_restart, bochs_df_rf, bochs_pointer_order, bochs_wrapped_image, bochs_masked_store, bochs_popf]


def case_start(case):
    return {"cs": case["cs"], "eip": case["eip"]}


def explain(machine, case, ours, theirs, names, bochs_agrees):
    """The manual section that decides why `theirs` differs from `ours` in `names`, or None. `bochs_agrees`: Bochs has in
    all of them what Ringdown has."""
    if ours is None or theirs is None:
        if machine != "qemu" or not bochs_agrees:
            return None
        if ours is None:
            return 'SDM vol. 3A, "Limit Checking": no stack for an exception is a shutdown; QEMU wraps its frame'
        if ours["vector"] in (UD, GP, SS):
            return 'SDM vol. 2A, "LOCK", vol. 3A, "Limit Checking": QEMU misses a fault and runs on, out of the guest'
        return None
    for result in (ours, theirs):
        if case["mode"] == "real" and 0xa0000 - 0x10000 < result["ss"] << 4:
            return 'the stack is above 640 KiB: what memory is there is the machine\'s own'
    rules = BOCHS if machine == "bochs" else QEMU + QEMU_WHERE_BOCHS_AGREES if bochs_agrees else QEMU
    for rule in rules:
        why = rule(case, ours, theirs, names)
        if why:
            return why
    return None
