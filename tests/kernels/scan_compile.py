"""Compiles the scan's Triton kernels for GPUs that are not there, and reads the machine code."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmmsvmamba.kernels import triton_plan
from mmmsvmamba.kernels.triton_backward import adjoint_ends, scan_backward
from mmmsvmamba.kernels.triton_forward import pass_states, scan_forward
from mmmsvmamba.kernels.triton_variant import unspilt

TARGETS = {
    'sm_80': GPUTarget('cuda', 80, 32),
    'sm_90': GPUTarget('cuda', 90, 32),
    'sm_100': GPUTarget('cuda', 100, 32),
    'gfx942': GPUTarget('hip', 'gfx942', 64),
}
CAPABILITIES = {'sm_80': 8, 'sm_90': 9, 'sm_100': 10, 'gfx942': 0}
#: Registers of a thread, bytes of shared memory (LDS) of a block.
REGISTERS = {'sm_80': 255, 'sm_90': 255, 'sm_100': 255, 'gfx942': 512}
SHARED = {'sm_80': 163 << 10, 'sm_90': 227 << 10, 'sm_100': 227 << 10, 'gfx942': 64 << 10}

#: Arguments that hold maps, in the dtype of the network; the other pointers are float32.
MAPS = {'U', 'DT', 'B', 'C', 'Y', 'GRAD', 'DU', 'DDT'}
#: What channels-last maps have: 1 in the strides of channels, multiples of 16 in those of images and pixels.
UNIT_STRIDES = {'u_d', 'dt_d', 'b_n', 'c_n', 'y_d', 'du_d'}
MULTIPLES = {'u_b', 'u_p', 'u_g', 'y_b', 'y_p', 'y_k', 'du_b', 'du_p', 'du_k', 'channels'}
FULL_RANK_MULTIPLES = {'dt_b', 'dt_p', 'dt_g'}

_TOOLS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin'


@dataclass(frozen=True)
class Case:
    """A kernel as dispatch launches it: the largest number of states and the largest rank of its configuration."""

    kernel: str
    states: int = 1
    rank: int = 0

    def __str__(self) -> str:
        return f'{self.kernel}-N{self.states}' + (f'-R{self.rank}' if self.rank else '')

    @property
    def config(self) -> triton_plan.Config:
        configs = triton_plan.BACKWARD if self.kernel in ('scan_backward', 'adjoint_ends') else triton_plan.FORWARD
        return triton_plan.config(configs, self.states)


def cases() -> list[Case]:
    """Everything that dispatch chooses from."""
    found = []
    for configs, kernels in (
        (triton_plan.FORWARD, ('scan_forward', 'forward_ends')),
        (triton_plan.BACKWARD, ('scan_backward', 'adjoint_ends')),
    ):
        for config in configs:
            ranks = [0, triton_plan.LOW_RANK] if triton_plan.projects(triton_plan.LOW_RANK, config.states) else [0]
            found += [Case(kernel, config.states, rank) for kernel in kernels for rank in ranks]
    return [*found, Case('pass_states')]


def forbids_spills(case: Case) -> bool:
    """Whether dispatch launches it with `unspilt`."""
    return case.config.unspilt and case.kernel == 'scan_backward'


@dataclass
class Compiled:
    """A thread's registers and spilled registers or bytes, a block's shared bytes, and the instructions.

    Attributes:
        loop: Instructions of the largest loop, as NVIDIA's disassembler lists it; empty for AMD.
        elements: Elements (token, channel) of a lane that one run through the innermost loop handles.
    """

    registers: int
    spills: int
    shared: int
    opcodes: Counter
    loop: int
    elements: float

    @property
    def per_element(self) -> float:
        return self.loop / self.elements

    def __str__(self) -> str:
        whole = sum(self.opcodes.values()) / self.elements
        instructions = f'{self.per_element:.1f} instructions per element in the loop, ' if self.loop else ''
        return f'{self.registers} registers, {self.spills} spills, {instructions}{whole:.1f} in the whole program'


def compile_case(case: Case, target: str, dtype: str = 'bf16', **changes) -> Compiled:
    """Compiles a case for `target` with channels-last maps of `dtype`; `changes` are constants or fields of Config."""
    config = replace(case.config, **{k: changes.pop(k) for k in ('channels', 'tile') if k in changes})
    keep = triton_plan.keep(case.states)
    constants = dict(
        N=case.states,
        RANK=case.rank,
        SOFTPLUS=True,
        ENDS=case.kernel == 'forward_ends',
        FAST=target.startswith('sm'),
        WIDE=False,
        BD=config.channels,
        TILE=config.tile,
        KEEP=keep,
    )
    constants |= changes
    kernel = dict(
        scan_forward=scan_forward,
        forward_ends=scan_forward,
        pass_states=pass_states,
        scan_backward=scan_backward,
        adjoint_ends=adjoint_ends,
    )[case.kernel]
    absent = {'DT_WEIGHT'} if not case.rank else set()
    absent |= {'STATES'} if constants['ENDS'] else set()
    absent |= {'SCRATCH'} if keep == config.tile else set()
    multiples = MULTIPLES if case.rank else MULTIPLES | FULL_RANK_MULTIPLES
    signature, values, attributes = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants or name in absent or name in UNIT_STRIDES:
            signature[name] = 'constexpr'
            values[(i,)] = constants.get(name, 1 if name in UNIT_STRIDES else None)
            continue
        pointer = name.isupper()
        signature[name] = (f'*{dtype}' if name in MAPS else '*fp32') if pointer else 'i32'
        if pointer or name in multiples:
            attributes[(i,)] = [['tt.divisibility', 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attributes)
    options = dict(num_warps=1)
    if forbids_spills(case):
        options |= unspilt(CAPABILITIES[target])
    done = triton.compile(source, target=TARGETS[target], options=options)
    elements = config.tile * config.channels / TARGETS[target].warp_size
    read = _of_amd if target.startswith('gfx') else _of_nvidia
    return read(done, elements)


def _of_amd(done, elements: float) -> Compiled:
    text = done.asm['amdgcn']
    numbers = {name: int(value) for name, value in re.findall(r'\.(vgpr_count|vgpr_spill_count):\s+(\d+)', text)}
    opcodes = Counter(re.findall(r'^\t([a-z]\w+)', text, re.M))
    registers, spills = numbers['vgpr_count'], numbers['vgpr_spill_count']
    return Compiled(registers, spills, done.metadata.shared, opcodes, 0, elements)


def _of_nvidia(done, elements: float) -> Compiled:
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(done.asm['cubin'])
        file.flush()
        usage = _tool('cuobjdump', '--dump-resource-usage', file.name)
        code = _tool('nvdisasm', '-c', file.name)
    numbers = {name: int(value) for name, value in re.findall(r'\b(REG|LOCAL):(\d+)', usage)}
    opcodes, loop = Counter(), 0
    labels, count = {}, 0
    for line in code.splitlines():
        if label := re.match(r'(\.L_x_\d+):', line):
            labels[label[1]] = count
        instruction = re.match(r'\s+/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)(.*)', line)
        if not instruction:
            continue
        opcodes[instruction[1]] += 1
        count += 1
        to = re.search(r'\((\.L_x_\d+)\)', instruction[2]) if instruction[1] == 'BRA' else None
        # a branch backwards closes a loop; one to itself only fills the end of the program
        if to and to[1] in labels and labels[to[1]] < count - 1:
            loop = max(loop, count - labels[to[1]])
    spills = numbers['LOCAL'] + opcodes['STL'] + opcodes['LDL']
    return Compiled(numbers['REG'], spills, done.metadata.shared, opcodes, loop, elements)


def _tool(name: str, *args: str) -> str:
    return subprocess.run([str(_TOOLS / name), *args], capture_output=True, text=True, check=True).stdout
