"""Compiles the scan's Triton kernels for GPUs that are not there, and reads the machine code."""

from __future__ import annotations

from dataclasses import dataclass

import triton
from machine_code import CAPABILITIES, TARGETS, MachineCode, read
from triton.compiler import ASTSource

from mmmsvmamba.kernels import triton_plan
from mmmsvmamba.kernels.triton_backward import adjoint_ends, scan_backward
from mmmsvmamba.kernels.triton_forward import SCALARS, pass_states, scan_forward
from mmmsvmamba.kernels.triton_launch import _CARRY
from mmmsvmamba.kernels.triton_variant import unspilt

#: Arguments that hold maps, in the dtype of the network; the other pointers are float32.
MAPS = {'U', 'DT', 'B', 'C', 'Y', 'GRAD', 'DU', 'DDT'}


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
    """Machine code of a case.

    Attributes:
        elements: Elements (token, channel) of a lane that one run through the innermost loop handles; chunks of
            `pass_states`.
    """

    code: MachineCode
    elements: float

    @property
    def per_element(self) -> float:
        """Instructions of the loop over tokens."""
        return self.code.loop / self.elements

    def __str__(self) -> str:
        whole = sum(self.code.opcodes.values()) / self.elements
        instructions = f'{self.per_element:.1f} instructions per element in the loop, ' if self.code.loop else ''
        return f'{self.code}, {instructions}{whole:.1f} in the whole program'


def compile_case(case: Case, target: str, dtype: str = 'bf16', **changes) -> Compiled:
    """Compiles a case for `target` with channels-last maps of `dtype`; `changes` are constants or fields of Config."""
    config = case.config._replace(**{k: changes.pop(k) for k in ('channels', 'tile') if k in changes})
    keep = triton_plan.keep(case.states)
    carries = case.kernel == 'pass_states'
    constants = dict(
        N=case.states,
        RANK=case.rank,
        SOFTPLUS=True,
        ENDS=case.kernel == 'forward_ends',
        FAST=target.startswith('sm'),
        WIDE=False,
        UNIT=True,
        STEP=16,
        BD=config.channels,
        TILE=config.tile,
        KEEP=keep,
    )
    constants |= (_CARRY if carries else {}) | changes
    kernel = dict(
        scan_forward=scan_forward,
        forward_ends=scan_forward,
        pass_states=pass_states,
        scan_backward=scan_backward,
        adjoint_ends=adjoint_ends,
    )[case.kernel]
    absent = {'DT_WEIGHT'} if not case.rank else set()
    absent |= {'STATES', 'SKIP'} if constants['ENDS'] else set()
    absent |= {'SUMS'} if case.kernel == 'scan_forward' else set()
    absent |= {'SCRATCH'} if keep == config.tile else set()
    signature, values, attributes = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants or name in absent:
            signature[name], values[(i,)] = 'constexpr', constants.get(name)
            continue
        pointer = name.isupper()
        signature[name] = (f'*{dtype}' if name in MAPS else '*fp32') if pointer else 'i32'
        if (pointer and name not in SCALARS) or name == 'channels':
            attributes[(i,)] = [['tt.divisibility', 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attributes)
    options = dict(num_warps=1)
    if forbids_spills(case):
        options |= unspilt(CAPABILITIES[target])
    code = read(triton.compile(source, target=TARGETS[target], options=options), target)
    if carries:
        return Compiled(code, constants['AHEAD'])
    return Compiled(code, config.tile * config.channels / TARGETS[target].warp_size)
