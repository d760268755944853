"""What QEMU and Bochs are known to do otherwise than the manual says, case by case. See tests/diff/modes.

Each rule looks at the fields in which a machine differs from Ringdown and gives the manual section that decides, or None.
"SDM" is Intel's "64 and IA-32 Architectures Software Developer's Manual".
"""

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


# ---- QEMU ---------------------------------------------------------------------------------------------------------

def qemu_restart(case, ours, theirs, names):
    if ours["vector"] == PF == theirs["vector"] and same_place(ours, theirs):
        if set(names) <= {"eflags", "memory"} and mnemonic(case) in ("rcl", "rcr", "sidt", "sgdt", "enter", "pusha", "pushad"):
            return 'SDM vol. 3A, "Restarting Programs or Tasks": QEMU changes state before it faults'
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
    if ours["vector"] == PF == theirs["vector"] and ours["error"] ^ theirs["error"] == 2 and same_place(ours, theirs):
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
    for rule in (bochs_rep_trap, bochs_alignment_first, bochs_arpl, bochs_pointer_order):
        why = rule(case, ours, theirs, names)
        if why:
            return why


def qemu_odd_opcodes(case, ours, theirs, names):
    if mnemonic(case) == "int1":
        return 'SDM vol. 2A, "INT1": QEMU takes F1 for undefined'
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
    if mnemonic(case) == "clflush" and ours["vector"] == PF:
        return 'SDM vol. 2A, "CLFLUSH": QEMU does not fault'


def qemu_order(case, ours, theirs, names):
    if is_fpu_insn(case) and (ours["vector"] in (NM, UD) or theirs["vector"] in (NM, UD, GP) and ours["vector"] in (PF, SS)):
        return 'SDM vol. 3A, "Priority Among Concurrent Events": QEMU\'s order of #UD, #NM, #GP, #PF'


QEMU = [qemu_rf, qemu_like_bochs, qemu_restart, qemu_limits, qemu_alignment, qemu_rmw, qemu_fpu, qemu_lock, qemu_odd_opcodes, qemu_order]


# ---- Bochs --------------------------------------------------------------------------------------------------------

def bochs_df_rf(case, ours, theirs, names):
    if names == ["eflags"] and ours["vector"] == DF and ours["eflags"] ^ theirs["eflags"] == RF:
        return 'SDM vol. 3B, "Instruction-Breakpoint Exception Condition": it says nothing of RF in the TSS after #DF'


def bochs_pointer_order(case, ours, theirs, names):
    if set(names) <= {"cr2", "error"} and mnemonic(case) in ("lds", "les", "lfs", "lgs", "lss", "bound", "jmp", "call", "retf", "iret", "iretd"):
        return 'SDM vol. 3A, "Interrupt 14": which part of a far pointer is read first is not said'


def bochs_alignment_first(case, ours, theirs, names):
    if theirs["vector"] == GP and theirs["error"] == 0 and ours["vector"] in (PF, SS) and same_place(ours, theirs) and \
            "xmm" in case["text"]:
        return 'SDM vol. 3A, "Priority Among Concurrent Events": misaligned 16 bytes (#GP) before #PF and #SS, in no said order'


def bochs_wrapped_image(case, ours, theirs, names):
    if ours["vector"] in (GP, SS) and same_place(ours, case_start(case)) and \
            mnemonic(case) in ("fnstenv", "fstenv", "fsave", "fnsave", "fldenv", "frstor", "maskmovdqu", "maskmovq"):
        return 'SDM vol. 3A, "Limit Checking": Bochs checks the parts of these operands one by one and wraps them'


def bochs_wrapped_fields(case, ours, theirs, names):
    code = case["code"]
    addr16 = (case["mode"] == "pm32") == ("67" in [code[i:i + 2] for i in range(0, len(code), 2)][:4])
    if addr16 and mnemonic(case) in ("fnstenv", "fnsave", "fldenv", "frstor") and set(names) <= {
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
    if names == ["eflags"] and mnemonic(case)[:4] in ("scas", "cmps") and case["efl"] & 0x100:
        return 'SDM vol. 2B, "REP": EFLAGS between two iterations of SCAS and CMPS are not said'


def bochs_enter(case, ours, theirs, names):
    if names == ["memory"] and mnemonic(case) == "enter" and ours["vector"] in (PF, GP, SS):
        return 'SDM vol. 3A, "Restarting Programs or Tasks": what ENTER has pushed below the stack pointer when it faults'


def bochs_wrapped_pointer(case, ours, theirs, names):
    if mnemonic(case) in ("lds", "les", "lfs", "lgs", "lss") and len(names) == 1 and case["mem"].split(":")[0][-3:] > "ffa":
        return 'SDM vol. 2A, ch. 2: the offset is 16 bits, the operand goes on behind it; Bochs wraps its selector at 64 KiB'
    if ours["vector"] in (GP, SS) and same_place(ours, case_start(case)) and \
            mnemonic(case) in ("lds", "les", "lfs", "lgs", "lss", "jmp", "call", "bound"):
        return 'SDM vol. 3A, "Limit Checking": Bochs checks the parts of a far pointer one by one and wraps between them'


def bochs_table_store(case, ours, theirs, names):
    if names == ["memory"] and mnemonic(case) in ("sidt", "sgdt") and ours["vector"] in (GP, SS, PF):
        return 'SDM vol. 3A, "Restarting Programs or Tasks": Bochs stores the limit before the base faults'


def bochs_table_alignment(case, ours, theirs, names):
    if mnemonic(case) in ("sidt", "sgdt") and theirs["vector"] == AC:
        return 'SDM vol. 3A, "Alignment Requirements by Data Type": a pseudo-descriptor is aligned at 4; Bochs looks at its base'


def bochs_arpl(case, ours, theirs, names):
    if mnemonic(case) == "arpl" and theirs["vector"] in (PF, GP, SS):
        return 'SDM vol. 2A, "ARPL": it reads first and writes only what it changes; the host decides (tests/diff --only arpl)'


def bochs_push_segment(case, ours, theirs, names):
    if names == ["memory"] and mnemonic(case) == "push" and same_place(ours, theirs):
        return 'SDM vol. 2B, "PUSH": a segment register as two bytes or as four, by processor'


def bochs_x87_restart(case, ours, theirs, names):
    if set(names) <= {"fsw", "cr2"} and mnemonic(case).startswith("f") and ours["vector"] in (PF, GP, SS):
        return 'SDM vol. 3A, "Restarting Programs or Tasks": Bochs sets x87 status before a store faults; the host does not'


BOCHS = [bochs_string_flags, bochs_enter, bochs_wrapped_fields, bochs_table_alignment, bochs_rep_trap, bochs_wrapped_pointer, bochs_table_store, bochs_image_order, bochs_arpl, bochs_push_segment, bochs_x87_restart, bochs_df_rf, bochs_pointer_order, bochs_alignment_first, bochs_wrapped_image, bochs_popf]


def case_start(case):
    return {"cs": case["cs"], "eip": case["eip"]}


def explain(machine, case, ours, theirs, names, third):
    """The manual section that decides why `theirs` differs from `ours` in `names`, or None. `third`: the other emulator's."""
    if ours is not None and theirs is None and machine == "qemu" and third is not None and ours["vector"] in (UD, GP, SS):
        return 'SDM vol. 2A, "LOCK", vol. 3A, "Limit Checking": QEMU misses a fault and runs on, out of the guest'
    if ours is None or theirs is None:
        return None
    for result in (ours, theirs):
        if case["mode"] == "real" and 0xa0000 - 0x10000 < result["ss"] << 4:
            return 'the stack is above 640 KiB: what memory is there is the machine\'s own'
    for rule in QEMU if machine == "qemu" else BOCHS:
        why = rule(case, ours, theirs, names)
        if why:
            return why
    return None
