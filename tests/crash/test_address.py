"""Specification of nbsupport.crash.address: what an instruction touches."""

from __future__ import annotations

import pytest

from nbsupport.crash.address import fault_address


class TestFaultAddress:
    REGISTERS = {  # noqa: RUF012
        "rax": 0x1000,
        "rbx": 0x0001_0001_0000_0001,
        "rcx": 2,
        "rdx": 0xFFFF_FFFF_FFFF_FFFF,
        "rsi": 0x2000,
        "rdi": 0x3000,
        "rbp": 0x8000,
        "rsp": 0x7000,
        "r9": 0x9_0000_0004,
        "rip": 0x5000,
    }
    ARM = {"x0": 0x1000, "x1": 0xF_FFFF_FFFF, "x8": 3, "fp": 0x8000, "lr": 0x99, "sp": 0x7000}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("instruction", "address"),
        [
            # LLDB, Intel syntax
            ("mov rax, qword ptr [rax]", 0x1000),
            ("cmp qword ptr [rax + 8*rcx], 0x0", 0x1010),
            ("mov r10, qword ptr [rbp - 0x10]", 0x7FF0),
            ("mov byte ptr [rax + 4*rcx - 0x8], cl", 0x1000),
            ("mov rax, qword ptr [rbx]", 0x0001_0001_0000_0001),
            ("mov eax, dword ptr [r9d]", 4),
            ("mov eax, dword ptr [eax + 1]", 0x1001),
            ("mov rax, qword ptr [rip + 0x10]", 0x5010),
            ("mov rax, qword ptr [rdx + 2]", 1),  # wraps at 64 bits
            ("mov rax, qword ptr [0x28]", 0x28),
            ("lock xadd dword ptr [rax], ecx", 0x1000),
            ("rep stosb byte ptr es:[rdi], al", 0x3000),
            ("call qword ptr [rax + 0x8]", 0x1008),
            # gdb, Intel syntax
            ("cmp QWORD PTR [rax+rcx*8],0x0", 0x1010),
            ("mov rax,QWORD PTR [rip+0x2ee5]        # 0x404028 <stdout>", 0x404028),
            ("mov eax,DWORD PTR ds:0x28", 0x28),
            ("rep stos BYTE PTR es:[rdi],al", 0x3000),
            # AT&T syntax
            ("cmpq $0x0,(%rax,%rcx,8)", 0x1010),
            ("cmpq   $0x0, (%rax,%rcx,8)", 0x1010),
            ("movq -0x10(%rbp), %rax", 0x7FF0),
            ("mov (,%rcx,4),%eax", 8),
            ("rep stos %al,%es:(%rdi)", 0x3000),
            ("callq *0x8(%rax)", 0x1008),
            # what is not written
            ("call rax", 0x1000),
            ("jmp *%rbx", 0x0001_0001_0000_0001),
            ("call 0x401000 <foo>", 0x6FF8),
            ("push rbp", 0x6FF8),
            ("pushq %rbp", 0x6FF8),
            ("pop rax", 0x7000),
            ("ret", 0x7000),
            ("leave", 0x8000),
            ("rep stosb", 0x3000),
            # doubt, or nothing
            ("lea rax, [rax + 8]", None),
            ("nop word ptr [rax]", None),
            ("add rax, rcx", None),
            ("popcnt rax, rcx", None),
            ("ud2", None),
            ("hlt", None),
            ("mov rax, qword ptr fs:[0x28]", None),
            ("mov %fs:0x28,%rax", None),
            ("mov rax, qword ptr [r15]", None),  # a register that is not known
            ("vpgatherdd ymm0, dword ptr [rax + 4*ymm1], ymm2", None),
            ("rep movsb byte ptr es:[rdi], byte ptr [rsi]", None),  # which of two?
            ("rep movsb byte ptr es:[rdi], byte ptr [rbx]", 0x0001_0001_0000_0001),
            ("rep movsb", None),
            ("", None),
        ],
    )
    def test_x86_64(self, instruction: str, address: int | None) -> None:
        assert fault_address(instruction, self.REGISTERS) == address

    @pytest.mark.parametrize(
        ("instruction", "address"),
        [
            ("ldr x8, [x0]", 0x1000),
            ("ldr x8, [x0, #0x28]", 0x1028),
            ("ldr x8, [x0, #40]", 0x1028),
            ("ldp x29, x30, [sp, #-0x10]!", 0x6FF0),
            ("ldr x8, [x0], #0x10", 0x1000),
            ("ldr x8, [x0, x8]", 0x1003),
            ("ldr x8, [x0, x8, lsl #3]", 0x1018),
            ("ldrb w9, [x0, w1, uxtw #3]", 0x1000 + 8 * 0xFFFF_FFFF),
            ("ldrb w9, [x0, w1, sxtw #3]", 0x1000 - 8),
            ("str xzr, [x29, #8]", 0x8008),
            ("blr x8", 3),
            ("br x8", 3),
            ("bl 0x1234", None),
            ("add x0, x0, #1", None),
            ("ldr x0, [x9]", None),
            ("ldr z0, [x0, #1, mul vl]", None),
        ],
    )
    def test_aarch64(self, instruction: str, address: int | None) -> None:
        assert fault_address(instruction, self.ARM) == address
