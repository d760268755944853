"""What QEMU and Bochs are known to do otherwise than the manual says, case by case. See tests/diff/modes.

Each rule looks at the fields in which a machine differs from Ringdown and gives the manual section that decides, or None.
"SDM" is Intel's "64 and IA-32 Architectures Software Developer's Manual".
"""

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

def qemu_rf(case, ours, theirs, names):
    if names == ["eflags"] and ours["eflags"] ^ theirs["eflags"] == RF:
        return 'SDM vol. 3B, "Instruction-Breakpoint Exception Condition": QEMU leaves RF clear in the frame of a fault'


def qemu_limits(case, ours, theirs, names):
    if ours["vector"] in (GP, SS) and ours["error"] == 0 and not (theirs["vector"] == ours["vector"] and same_place(ours, theirs)):
        return 'SDM vol. 3A, "Limit Checking", "Type Checking": QEMU checks neither when memory is accessed'


def qemu_alignment(case, ours, theirs, names):
    if ours["vector"] == AC:
        return 'SDM vol. 3A, "Interrupt 17": QEMU checks no alignment'


def qemu_rmw(case, ours, theirs, names):
    if ours["vector"] == PF == theirs["vector"] and ours["error"] ^ theirs["error"] == 2 and same_place(ours, theirs):
        return 'SDM vol. 3A, "Page-Fault Exceptions": QEMU faults at the read of a read-modify-write'


QEMU = [qemu_rf, qemu_limits, qemu_alignment, qemu_rmw]


# ---- Bochs --------------------------------------------------------------------------------------------------------

def bochs_df_rf(case, ours, theirs, names):
    if names == ["eflags"] and ours["vector"] == DF and ours["eflags"] ^ theirs["eflags"] == RF:
        return 'SDM vol. 3B, "Instruction-Breakpoint Exception Condition": it says nothing of RF in the TSS after #DF'


def bochs_pointer_order(case, ours, theirs, names):
    if names == ["cr2"] and mnemonic(case) in ("lds", "les", "lfs", "lgs", "lss", "bound", "jmp", "call", "retf", "iret", "iretd"):
        return 'SDM vol. 3A, "Interrupt 14": which part of a far pointer is read first is not said'


def bochs_alignment_first(case, ours, theirs, names):
    if theirs["vector"] == GP and theirs["error"] == 0 and ours["vector"] in (PF, SS) and same_place(ours, theirs) and \
            "xmm" in case["text"]:
        return 'SDM vol. 3A, "Priority Among Concurrent Events": misaligned 16 bytes (#GP) before #PF and #SS, in no said order'


def bochs_wrapped_image(case, ours, theirs, names):
    if ours["vector"] in (GP, SS) and same_place(ours, case_start(case)) and \
            mnemonic(case) in ("fnstenv", "fnsave", "fldenv", "frstor", "maskmovdqu", "maskmovq"):
        return 'SDM vol. 3A, "Limit Checking": Bochs checks the parts of these operands one by one and wraps them'


def bochs_popf(case, ours, theirs, names):
    if case["mode"] == "v86" and mnemonic(case) in ("popf", "popfd", "iret", "iretd") and ours["vector"] == GP and \
            theirs["vector"] in (SS, PF) and same_place(ours, theirs):
        return 'SDM vol. 2B, "POPF", vol. 2A, "IRET": IOPL is checked before the stack is read'


BOCHS = [bochs_df_rf, bochs_pointer_order, bochs_alignment_first, bochs_wrapped_image, bochs_popf]


def case_start(case):
    return {"cs": case["cs"], "eip": case["eip"]}


def explain(machine, case, ours, theirs, names, third):
    """The manual section that decides why `theirs` differs from `ours` in `names`, or None. `third`: the other emulator's."""
    if ours is None or theirs is None:
        return None
    for rule in QEMU if machine == "qemu" else BOCHS:
        why = rule(case, ours, theirs, names)
        if why:
            return why
    return None
