"""The address that an instruction touches, out of its text and the registers.

Reads what LLDB and gdb print: Intel and AT&T syntax of x86-64, and aarch64's. It is for
one faulting instruction, so where the text leaves a doubt the answer is None.
"""

import re
from collections.abc import Callable, Iterator, Mapping

_WORD = 1 << 64
_PREFIXES = frozenset(("lock", "rep", "repe", "repz", "repne", "repnz", "notrack", "bnd"))
_NO_ACCESS = re.compile(r"(lea|nop)[wlq]?$")  # a memory operand that is not accessed
_BRANCH = re.compile(r"(call|jmp|ret)q?$|br$|blr$")
_REGISTER = re.compile(r"\*?%?([a-z]\w*)$")
_BRACKETS = re.compile(r"\[([^\]]+)\]|\bds:(0x[0-9a-f]+)")
_TERM = re.compile(r"([+-]?)([^+-]+)")
_ATT = re.compile(r"(-?0x[0-9a-f]+|-?\d+)?\((%\w+)?(?:,(%\w+(?:,\d)?))?\)")
#: What is touched without being written: instruction, register, and how far from where it points.
_IMPLICIT = (
    (r"(push|call)f?q? ", "rsp", -8),
    (r"(popf?|ret)q? ", "rsp", 0),
    (r"leaveq? ", "rbp", 0),
    (r"(stos|scas|movs|cmps)[bwldq] $", "rdi", 0),
    (r"(lods|movs|cmps)[bwldq] $", "rsi", 0),
)
#: One register under the names of LLDB and of gdb; those that always read as zero.
_ALIASES = {"x29": "fp", "fp": "x29", "x30": "lr", "lr": "x30"}
_ZERO = frozenset(("xzr", "wzr", "riz", "eiz"))
_NARROW = re.compile(r"e(?P<old>[a-ds][xipl])|r(?P<new>\d+)d|w(?P<arm>\d+)")
_ARM = re.compile(r"(\w+), ?(?:#(-?\w+)|(\w+)(?:, ?(lsl|[us]xt[wx])(?: #(\w+))?)?)")

Value = Callable[[str], int]


def fault_address(instruction: str, registers: Mapping[str, int]) -> int | None:
    """Return the effective address of the instruction's memory operand, as 64 bits.

    An indirect branch touches its target; push, pop, call and ret touch the stack. None
    without a memory operand, with a segment base (``fs:``), with a register that is not in
    `registers`, and for a copy with two operands unless exactly one is non-canonical.

    `instruction` is the text that LLDB or gdb prints. `rip` in `registers` counts from the next
    instruction: give that address, or the resolved address in a comment, as gdb does.

    >>> fault_address("mov rax, qword ptr [rax + 8*rcx - 0x10]", {"rax": 0x1000, "rcx": 3})
    4104
    >>> fault_address("cmpq $0x0,(%rax,%rcx,8)", {"rax": 0x1000, "rcx": 3})
    4120
    >>> fault_address("ldrb w9, [x0, w1, uxtw #3]", {"x0": 0x1000, "x1": 2})
    4112
    >>> fault_address("mov rax,QWORD PTR [rip+0x10] # 0x5555 <stdout>", {})
    21845
    >>> fault_address("lea rax, [rcx]", {"rcx": 3}) is None
    True
    """
    text, _, resolved = instruction.lower().partition(" # ")
    mnemonic, operands = _split(re.sub(r"<[^>]*>|;.*", "", text))
    if _NO_ACCESS.match(mnemonic) or re.search(r"\b[fg]s:", operands):
        return None
    if resolved and "rip" in operands:
        return int(resolved.split()[0], 16)

    def value(name: str) -> int:
        return _register(name.removeprefix("%"), registers)

    try:
        touched = [*_explicit(operands, value)] or [*_implicit(mnemonic, operands, value)]
    except (KeyError, ValueError):  # a vector register as index, a syntax of neither debugger
        return None
    addresses = [address % _WORD for address in touched]
    if len(addresses) > 1:
        addresses = [address for address in addresses if not is_canonical(address)]
    return addresses[0] if len(addresses) == 1 else None


def is_canonical(address: int) -> bool:
    """Whether x86-64 takes the address at all: bits 47 to 63 are equal (Intel SDM 1, 3.3.7.1).

    >>> is_canonical(0x7FFF_FFFF_FFFF), is_canonical(0x1_0000_0000_0001)
    (True, False)
    """
    return address >> 47 in (0, (1 << 17) - 1)


def is_branch(instruction: str) -> bool:
    """Whether the instruction jumps to where a register or memory says: two places can fault.

    >>> is_branch("call qword ptr [rax + 0x8]"), is_branch("mov rax, qword ptr [rax]")
    (True, False)
    """
    return bool(_BRANCH.match(_split(instruction.lower())[0]))


def _split(text: str) -> tuple[str, str]:
    words = text.split()
    while len(words) > 1 and words[0] in _PREFIXES:
        del words[0]
    return (words[0], " ".join(words[1:])) if words else ("", "")


def _explicit(operands: str, value: Value) -> Iterator[int]:
    """Yield the address of each operand that is written as memory."""
    if "%" in operands:
        for displacement, base, index in _ATT.findall(operands):
            yield _intel("+".join((displacement, base, index.replace(",", "*"))), value)
        return
    for inside, absolute in _BRACKETS.findall(operands):
        if absolute:
            yield int(absolute, 16)
        else:
            yield _arm(inside, value) if "," in inside else _intel(inside, value)


def _intel(inside: str, value: Value) -> int:
    """``rax + 8*rcx - 0x10`` (LLDB), ``rax+rcx*8-0x10`` (gdb); ``x0`` alone is aarch64's, too."""
    total = 0
    for sign, term in _TERM.findall(inside.replace(" ", "")):
        product = 1
        for factor in term.split("*"):
            product *= int(factor, 0) if factor[0].isdigit() else value(factor)
        total += -product if sign == "-" else product
    return total


def _arm(inside: str, value: Value) -> int:
    """``x0, #0x28`` and ``x0, w1, uxtw #3``."""
    match = _ARM.fullmatch(inside)
    if not match:
        raise ValueError(inside)
    base, distance, index, extend, shift = match.groups()
    if distance:
        return value(base) + int(distance, 0)
    offset = value(index)
    if extend == "sxtw" and offset >> 31 & 1:
        offset -= 1 << 32
    return value(base) + (offset << int(shift or "0", 0))


def _implicit(mnemonic: str, operands: str, value: Value) -> Iterator[int]:
    """Yield what an instruction without a memory operand touches all the same."""
    register = _REGISTER.match(operands)
    if _BRANCH.match(mnemonic) and register:
        yield value(register[1])
        return
    for pattern, pointer, distance in _IMPLICIT:
        if re.match(pattern, f"{mnemonic} {operands}"):
            yield value(pointer) + distance


def _register(name: str, registers: Mapping[str, int]) -> int:
    """Return a register's value; raises KeyError for one that is not known."""
    if name in _ZERO:
        return 0
    for whole in (name, _ALIASES.get(name, name)):
        if whole in registers:
            return registers[whole]
    narrow = _NARROW.fullmatch(name)
    if not narrow:
        raise KeyError(name)
    whole = f"x{narrow['arm']}" if narrow["arm"] else f"r{narrow['old'] or narrow['new']}"
    return _register(whole, registers) % (1 << 32)
