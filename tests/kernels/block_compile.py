"""Compiles the kernels around the scan, as a launcher would, for GPUs that are not there."""

from __future__ import annotations

from collections.abc import Mapping

import triton
from machine_code import TARGETS, MachineCode, read
from triton.compiler import ASTSource


def compile_kernel(
    kernel, constants: Mapping, warps: int, target: str, maps: set[str], dtype: str = 'bf16', **options
) -> MachineCode:
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
    return read(triton.compile(source, target=TARGETS[target], options=dict(num_warps=warps, **options)), target)
