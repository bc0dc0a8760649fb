"""A stand-in for the driver of an NVIDIA GPU that is not there: tensors of the CPU take Triton's way, no kernel runs.

What would be compiled is noted, so that tests can compile just that, and launches cost what they cost the CPU beside a
GPU, but for the call of the driver itself. Maps keep what their memory held: values mean nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import driver

from mmmsvmamba.kernels import backend, triton_launcher, triton_plan, triton_variant

#: Processors of an H100 and an H200.
PROCESSORS = 132


@dataclass(frozen=True)
class Compiled:
    """A kernel as Triton would compile it.

    Attributes:
        kernel: The jitted function.
        signature: Argument -> type, 'constexpr' for constants and what is compiled in.
        constants: Path of an argument -> value.
        attributes: Path of an argument -> what is known of it, such as divisibility.
        options: Of the compiler that differ from its own: num_warps, maxnreg.
    """

    kernel: object
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[tuple[int, ...], object], ...]
    attributes: tuple[tuple[tuple[int, ...], tuple], ...]
    options: tuple[tuple[str, int], ...]

    def compile(self, target: GPUTarget) -> object:
        """Compiles it; needs no GPU."""
        attributes = {path: [list(x) for x in found] for path, found in self.attributes}
        source = ASTSource(self.kernel, dict(self.signature), dict(self.constants), attributes)
        return triton.compile(source, target=target, options=dict(self.options))

    def __str__(self) -> str:
        names = [name for name, _ in self.signature]
        constants = {names[path[0]]: value for path, value in self.constants}
        given = '-'.join(f'{name}={value}' for name, value in constants.items() if name.isupper())
        return f'{self.kernel.__name__}-{given}'


@dataclass
class Noted:
    """What a stand-in saw: the kernels that were compiled, how many launches there were, and the last one's arguments:
    the grid, what Triton adds, and those of the kernel."""

    compiled: list[Compiled] = field(default_factory=list)
    launches: int = 0
    last: tuple = ()


class _Kernel:
    """Takes the place of a compiled kernel."""

    function = packed_metadata = None

    def __init__(self, noted: Noted) -> None:
        self.noted = noted

    def launch_metadata(self, *args: object) -> None:
        return None

    def run(self, *args: object) -> None:
        self.noted.launches += 1
        self.noted.last = args

    def __getitem__(self, grid: tuple[int, int, int]):
        # as triton's own: asks for device and stream, and calls `run`
        def runner(*args: object) -> None:
            stream = driver.active.get_current_stream(driver.active.get_current_device())
            self.run(grid[0], grid[1], grid[2], stream, self.function, self.packed_metadata, None, None, None, *args)

        return runner


class _Driver:
    def __init__(self, capability: int) -> None:
        self.target = GPUTarget('cuda', capability, 32)
        #: Nothing that was compiled for another stand-in is found again.
        self.device = object()

    def get_current_device(self) -> object:
        return self.device

    def get_current_stream(self, device: object) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self.target


@contextmanager
def stand_in(capability: int = 90) -> Iterator[Noted]:
    """Lets tensors of the CPU run the Triton backend, as on a GPU of a compute capability; notes what it compiles."""
    noted = Noted()

    def compile(source, target: GPUTarget, options: dict) -> _Kernel:
        noted.compiled.append(
            Compiled(
                source.fn,
                tuple(source.signature.items()),
                tuple(source.constants.items()),
                tuple((path, tuple(map(tuple, found))) for path, found in source.attrs.items()),
                tuple((name, options[name]) for name in ('num_warps', 'maxnreg') if options.get(name) is not None),
            )
        )
        return _Kernel(noted)

    # a property since Triton 3.6, which looks for a GPU where none was set
    active = '_active' if hasattr(driver, '_active') else 'active'
    triton_launcher.forget()
    try:
        with (
            mock.patch.object(driver, active, _Driver(capability)),
            mock.patch.dict(os.environ, {backend.VARIABLE: 'triton'}),
            mock.patch.object(backend, '_chosen', {}),
            mock.patch.object(backend, '_interpreted', lambda: True),
            mock.patch.object(triton_variant, 'capability', lambda device: capability // 10),
            mock.patch.object(triton_plan, '_processors', lambda device: PROCESSORS),
            mock.patch.object(triton.compiler, 'compile', compile),
        ):
            yield noted
    finally:
        triton_launcher.forget()
