"""Compiles Triton kernels for GPUs that are not there, and reads what the machine code takes."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = {
    'sm_80': GPUTarget('cuda', 80, 32),
    'sm_90': GPUTarget('cuda', 90, 32),
    'sm_100': GPUTarget('cuda', 100, 32),
    'gfx942': GPUTarget('hip', 'gfx942', 64),
}
#: Bytes of shared memory of a block; of AMD's LDS.
SHARED = {'sm_80': 163 << 10, 'sm_90': 227 << 10, 'sm_100': 227 << 10, 'gfx942': 64 << 10}
_TOOLS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin'


@dataclass
class Compiled:
    """Resources of a thread (registers, spilled bytes or registers) and of a block (shared bytes); instructions.

    `loop` counts the instructions of the longest loop without a loop in it; 0 for AMD.
    """

    registers: int
    spills: int
    shared: int
    instructions: Counter
    loop: int


def compile_kernel(
    kernel, constants: Mapping, warps: int, target: str, maps: set[str], dtype: str = 'bf16', **options
) -> Compiled:
    """Compiles a kernel whose arguments in capitals are pointers: `maps` to `dtype`, the others to float32.

    Pointers, and the size `channels`, are multiples of 16; `eps` is a float; all else a 32-bit integer.
    """
    signature, values, attributes = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], values[(i,)] = 'constexpr', constants[name]
            continue
        pointer = name.isupper()
        signature[name] = (f'*{dtype}' if name in maps else '*fp32') if pointer else 'fp32' if name == 'eps' else 'i32'
        if pointer or name == 'channels':
            attributes[(i,)] = [['tt.divisibility', 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attributes)
    done = triton.compile(source, target=TARGETS[target], options=dict(num_warps=warps, **options))
    if target.startswith('gfx'):
        text = done.asm['amdgcn']
        numbers = {name: int(value) for name, value in re.findall(r'\.(\w+):\s+(\d+)', text)}
        found = Counter(re.findall(r'^\t([a-z]\w+)', text, re.M))
        return Compiled(numbers['vgpr_count'], numbers['vgpr_spill_count'], done.metadata.shared, found, loop=0)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'kernel.cubin')
        Path(path).write_bytes(done.asm['cubin'])
        usage = _run('cuobjdump', '--dump-resource-usage', path)
        code = _run('nvdisasm', '-c', path)
    numbers = {name: int(value) for name, value in re.findall(r'(REG|STACK|LOCAL):(\d+)', usage)}
    pattern = re.compile(r'^\s+/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)(.*)')
    labels, found, loops = {}, [], []
    for line in code.splitlines():
        if label := re.match(r'^(\.L_\w+):', line):
            labels[label[1]] = len(found)
        elif instruction := pattern.match(line):
            found.append(instruction[1])
            target = re.search(r'\((\.L_\w+)\)', instruction[2])
            if instruction[1] == 'BRA' and target and labels.get(target[1], len(found)) < len(found) - 1:
                loops.append((labels[target[1]], len(found)))
    inner = [b - a for a, b in loops if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in loops)]
    counts = Counter(found)
    spills = numbers['STACK'] + numbers['LOCAL'] + counts['STL'] + counts['LDL']
    return Compiled(numbers['REG'], spills, done.metadata.shared, counts, max(inner, default=0))


def _run(tool: str, *args: str) -> str:
    return subprocess.run([str(_TOOLS / tool), *args], capture_output=True, text=True, check=True).stdout
