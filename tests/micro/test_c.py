"""The vectors read in C: by the compiler that is here, and on an emulated Cortex-M4 (`make test-cortex`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

SOURCE = Path(__file__).with_name("vectors.c")
STRICT = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror"]
COMPILER = shutil.which("cc")


def header(folder: Path) -> Path:
    """Make the vectors as C."""
    command = [sys.executable, str(ROOT / "tools" / "protocol_vectors.py"), "--c-header"]
    made = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    (folder / "vectors.h").write_text(made)
    return folder


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
def test_a_reader_in_c_agrees_with_the_vectors(tmp_path: Path) -> None:
    sanitized = ["-fsanitize=undefined", "-fno-sanitize-recover"]
    run("cc", *STRICT, *sanitized, f"-I{header(tmp_path)}", str(SOURCE), "-o", str(tmp_path / "reader"))
    assert run(str(tmp_path / "reader")) == "ok\n"


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
def test_the_reader_in_c_sees_a_changed_byte(tmp_path: Path) -> None:
    text = (header(tmp_path) / "vectors.h").read_text()
    head, begin, numbers = text.partition("frames_0[] = {")
    first, rest = numbers.split(",", 1)
    (tmp_path / "vectors.h").write_text(f"{head}{begin}{int(first) ^ 1},{rest}")
    run("cc", *STRICT, f"-I{tmp_path}", str(SOURCE), "-o", str(tmp_path / "reader"))
    done = subprocess.run([str(tmp_path / "reader")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "whole" in done.stdout


@pytest.mark.skipif(not os.environ.get("MAS_EDGE_CORTEX"), reason="an emulated Cortex-M: make test-cortex")
def test_the_reader_agrees_on_a_cortex_m4(tmp_path: Path) -> None:
    """QEMU's MPS2 board with the Cortex-M4; newlib writes by semihosting."""
    (tmp_path / "start.c").write_text(
        """extern unsigned long __stack; extern void _start(void);
        void _init(void) {} void _fini(void) {}
        __attribute__((section(".vectors"), used)) static const void *table[2] = {(void *)0x20400000, (void *)_start};
        """
    )
    (tmp_path / "board.ld").write_text(
        """MEMORY { FLASH (rx) : ORIGIN = 0, LENGTH = 4M  RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 4M }
        SECTIONS {
          .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > FLASH
          .ARM.exidx : { *(.ARM.exidx*) } > FLASH
          .data : { *(.data*) } > RAM AT > RAM
          .bss (NOLOAD) : { __bss_start__ = .; *(.bss*) *(COMMON) __bss_end__ = .; } > RAM
          . = ALIGN(8); end = .; __end__ = .; __stack = 0x20400000;
        }"""
    )
    target = ["-mcpu=cortex-m4", "-mthumb", "--specs=rdimon.specs", "-nostartfiles", "-T", str(tmp_path / "board.ld")]
    crt0 = run("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-print-file-name=rdimon-crt0.o").strip()
    run(
        "arm-none-eabi-gcc", *STRICT, *target, f"-I{header(tmp_path)}", crt0, str(tmp_path / "start.c"), str(SOURCE),
        "-o", str(tmp_path / "reader.elf"),
    )  # fmt: skip
    machine = ["-M", "mps2-an386", "-nographic", "-semihosting-config", "enable=on,target=native"]
    assert run("qemu-system-arm", *machine, "-kernel", str(tmp_path / "reader.elf")).strip() == "ok"
