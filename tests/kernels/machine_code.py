"""Reads what a kernel takes, from the machine code that Triton made for a GPU that is not there."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget

TARGETS = {
    'sm_80': GPUTarget('cuda', 80, 32),
    'sm_90': GPUTarget('cuda', 90, 32),
    'sm_100': GPUTarget('cuda', 100, 32),
    'gfx942': GPUTarget('hip', 'gfx942', 64),
}
#: Major compute capabilities.
CAPABILITIES = {'sm_80': 8, 'sm_90': 9, 'sm_100': 10, 'gfx942': 0}
#: Registers of a thread; bytes of shared memory of a block, of AMD's LDS.
REGISTERS = {'sm_80': 255, 'sm_90': 255, 'sm_100': 255, 'gfx942': 512}
SHARED = {'sm_80': 163 << 10, 'sm_90': 227 << 10, 'sm_100': 227 << 10, 'gfx942': 64 << 10}

#: Bytes of the stack that a program may take where none of its loops touches them: none, but what releases of Triton
#: before 3.6 gave the assembler made it keep two values there that only the end of `scan_backward` needs.
STACK = 0 if tuple(map(int, triton.__version__.split('.')[:2])) >= (3, 6) else 8

_TOOLS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin'
_INSTRUCTION = re.compile(r'^\s+/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)(.*)')


@dataclass
class MachineCode:
    """Resources of a thread (registers, spilled bytes or registers) and of a block (shared bytes); instructions.

    Attributes:
        stack: Of the spills, bytes that no loop touches; 0 for AMD.
        loop: Instructions of the largest loop, and of the longest loop without a loop in it; 0 for AMD.
    """

    registers: int
    spills: int
    shared: int
    opcodes: Counter
    stack: int = 0
    loop: int = 0
    inner_loop: int = 0

    def fits(self, target: str) -> bool:
        """Whether nothing is spilled, but for what `STACK` allows, and a GPU of this kind can run it."""
        spilled = self.spills > 0 and not 0 < self.stack <= STACK
        return not spilled and 0 < self.registers <= REGISTERS[target] and self.shared <= SHARED[target]

    def __str__(self) -> str:
        count = sum(self.opcodes.values())
        return f'{self.registers} registers, {self.spills} spills, {self.shared} B shared, {count} instructions'


def read(done: object, target: str) -> MachineCode:
    """Reads a kernel that `triton.compile` made for one of `TARGETS`."""
    if target.startswith('gfx'):
        text = done.asm['amdgcn']
        numbers = {name: int(x) for name, x in re.findall(r'\.(vgpr_count|vgpr_spill_count):\s+(\d+)', text)}
        opcodes = Counter(re.findall(r'^\t([a-z]\w+)', text, re.M))
        return MachineCode(numbers['vgpr_count'], numbers['vgpr_spill_count'], done.metadata.shared, opcodes)
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(done.asm['cubin'])
        file.flush()
        usage = _tool('cuobjdump', '--dump-resource-usage', file.name)
        code = _tool('nvdisasm', '-c', file.name)
    numbers = {name: int(x) for name, x in re.findall(r'\b(REG|STACK|LOCAL):(\d+)', usage)}
    labels, found, loops = {}, [], []
    for line in code.splitlines():
        if label := re.match(r'^(\.L_\w+):', line):
            labels[label[1]] = len(found)
        elif instruction := _INSTRUCTION.match(line):
            found.append(instruction[1])
            to = re.search(r'\((\.L_\w+)\)', instruction[2]) if instruction[1] == 'BRA' else None
            # a branch backwards closes a loop; one to itself only fills the end of the program
            if to and labels.get(to[1], len(found)) < len(found) - 1:
                loops.append((labels[to[1]], len(found)))
    inner = [b - a for a, b in loops if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in loops)]
    opcodes = Counter(found)
    spills = numbers['STACK'] + numbers['LOCAL'] + opcodes['STL'] + opcodes['LDL']
    looped = any({'STL', 'LDL'} & set(found[a:b]) for a, b in loops)
    stack = 0 if looped or numbers['LOCAL'] else numbers['STACK']
    largest = max((b - a for a, b in loops), default=0)
    return MachineCode(numbers['REG'], spills, done.metadata.shared, opcodes, stack, largest, max(inner, default=0))


def _tool(name: str, *args: str) -> str:
    return subprocess.run([str(_TOOLS / name), *args], capture_output=True, text=True, check=True).stdout
