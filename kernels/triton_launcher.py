"""A launch of a kernel that is planned once and costs the CPU little from then on.

Triton binds and examines all arguments of every launch in Python, which takes about 45 µs for forty of them. Sizes and
constants follow from the shapes that an operator is given, so launchers make a `Launch` once for all calls of the same
shapes (`planned`). What is left to look at is what Triton compiles anew for: dtypes and alignment of the
pointers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from triton.runtime import JITFunction

from .checks import TRITON_DTYPES, refuse_dtype

#: Plans of a kind that are kept: images of many sizes come again and again in a training.
_PLANS = 4096
T = TypeVar('T')

_kept: list[Any] = []


def planned(function: Callable[..., T]) -> Callable[..., T]:
    """Keeps what a function of shapes and settings made, for the next call with the same."""
    keeping = lru_cache(_PLANS)(function)
    _kept.append(keeping)
    return keeping


def forget() -> None:
    """Drops all plans: for who changes what GPU there seems to be."""
    for keeping in _kept:
        keeping.cache_clear()


class Launch:
    """A kernel, whose arguments are pointers, then sizes, then constants, with all but the pointers.

    Args:
        kernel: The jitted function.
        grid: Programs, in three dimensions.
        sizes: The arguments behind the pointers.
        constants: Those behind them by name, in the order of the kernel.
        options: Of Triton: num_warps, maxnreg.
    """

    __slots__ = ('compiled', 'constants', 'grid', 'kernel', 'options', 'remembers', 'sizes', 'tail')

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        sizes: tuple[int | float, ...],
        constants: Mapping[str, int | bool],
        **options: int,
    ) -> None:
        self.kernel, self.grid, self.sizes, self.constants, self.options = kernel, grid, sizes, constants, options
        self.tail = (*sizes, *constants.values())
        self.compiled: dict[tuple, Callable] = {}
        # the interpreter compiles nothing, and on AMD what is compiled depends on the bytes behind a pointer too
        self.remembers = isinstance(kernel, JITFunction) and torch.version.hip is None

    def __call__(self, *pointers: Tensor | None) -> None:
        """Launches on the current device, which is that of the tensors, and its current stream.

        A pointer that is None is compiled in; the first is not None.
        """
        if not self.remembers:
            self._launch(pointers)
            return
        key = pointers[0].get_device(), *[None if x is None else (x.dtype, x.data_ptr() % 16) for x in pointers]
        run = self.compiled.get(key)
        if run is None:
            self.compiled[key] = self._launch(pointers)[self.grid]
        else:
            run(*pointers, *self.tail)

    def _launch(self, pointers: tuple[Tensor | None, ...]) -> Any:
        for name, x in zip(self.kernel.arg_names, pointers, strict=False):
            if x is not None and x.dtype not in TRITON_DTYPES:
                refuse_dtype(name, x.dtype)
        return self.kernel[self.grid](*pointers, *self.sizes, **self.constants, **self.options)


class Walks(NamedTuple):
    """A launch whose programs each write partial sums, and the number of these programs."""

    programs: int
    launch: Launch
