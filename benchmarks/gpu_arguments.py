"""Checks of what models give the kernels: their numbers of channels, 16 and 24 states, arguments that are absent.

Maps are as small as those of the last stages. Channels that fill whole blocks of a program take other loads than the
odd numbers of `gpu_values`: aligned ones of several values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from gpu_compare import TOLERANCES, Errors, compare, compare_maps, compare_sequences
from gpu_values import OPERATORS, convolved, joined, maps, nearest_norm, norm_bilinear, operator_inputs, sequences
from scan_cases import GROUPS, Inputs
from torch import Tensor
from worker import Settings, Step

from mmmsvmamba.kernels import (
    depthwise_residual_gelu,
    depthwise_silu,
    depthwise_silu_pair,
    merge_nearest_norm,
    merge_norm_bilinear,
    scale_and_gate,
)

#: Of the stages of the tiny models; twice as many where a mixer doubles them.
CHANNELS = (96, 192, 384, 768)
#: For the interpreter, where every block of channels takes seconds.
TINY_CHANNELS = 16
SIZES = ((7, 9), (14, 14))
DTYPES = (torch.float32, torch.bfloat16)
#: The routes of a block of MSVMamba: that over the full map, and the three joined ones.
ROUTES = {'full': GROUPS['row'], 'joined': GROUPS['joined']}


def sizes(settings: Settings) -> tuple[tuple[int, int], ...]:
    return ((2, 1),) if settings.tiny else SIZES


def kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


def channels_of_scan(settings: Settings, channels: int, dtype: torch.dtype) -> dict:
    errors = Errors()
    if settings.tiny:
        channels = TINY_CHANNELS
    # of low rank, that of the models: below and above the largest that is projected in the kernel
    for (height, width), (name, groups), rank in product(sizes(settings), ROUTES.items(), (None, channels // 16)):
        inputs = maps(settings, batch=2, height=height, width=width, channels=channels, rank=rank, dtype=dtype)
        case = f'{name}, {height}×{width}, rank {rank}'
        compare_maps(errors, inputs, groups, settings.device, case)
    return errors.figures()


def channels_of_operator(settings: Settings, name: str) -> dict:
    errors = Errors()
    ours, definition, shapes = OPERATORS[name]
    numbers = (TINY_CHANNELS,) if settings.tiny else CHANNELS
    for (height, width), channels, dtype in product(sizes(settings), numbers, DTYPES):
        size = (2, height, width, channels)
        names = [f'input{i}' for i in range(len(shapes(*size)))]
        inputs = operator_inputs(name, size, dtype)
        compare(errors, ours, definition, inputs, names, settings.device, f'{size} in {kind(dtype)}')
    return errors.figures()


def states_in_training(settings: Settings, d_state: int, dtype: torch.dtype) -> dict:
    """Both scans with more states than a launch of the backward holds, as VMamba's first release and Vim have them."""
    errors = Errors()
    height, width = (2, 1) if settings.tiny else (9, 11)
    channels = 2 if settings.tiny else 96
    for rank in (None,) if settings.tiny else (None, 6):
        inputs = maps(
            settings, height=height, width=width, channels=channels, groups=2, rank=rank, d_state=d_state, dtype=dtype
        )
        compare_maps(errors, inputs, GROUPS['two-groups'], settings.device, f'maps, rank {rank}')
    inputs = sequences(settings, d_state=d_state, channels=channels, length=height * width, dtype=dtype)
    compare_sequences(errors, inputs, settings.device, 'sequences')
    return errors.figures()


# ---- arguments that may be None ----


def absent_in_sequences(settings: Settings) -> dict:
    errors = Errors()
    length = 2 if settings.tiny else 70
    for skip, bias, softplus, groups in product((True, False), (True, False), (True, False), (None, 2)):
        inputs = sequences(settings, skip=skip, bias=bias, groups=groups, length=length, channels=4)
        case = f'D {skip}, delta_bias {bias}, groups {groups}, softplus {softplus}'
        compare_sequences(errors, inputs, settings.device, case, softplus)
    return errors.figures()


def without(indices: tuple[int, ...], inputs: Inputs) -> Iterator[tuple[str, Inputs]]:
    """The inputs without any of those, in every combination but that of all being there."""
    for absent in product((False, True), repeat=len(indices)):
        left_out = [index for index, gone in zip(indices, absent, strict=True) if gone]
        if left_out:
            yield f'without {left_out}', [None if i in left_out else x for i, x in enumerate(inputs)]


def _merged_each(full: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    if half is not None:
        return norm_bilinear(full, half, weight, bias)
    return F.layer_norm(full, weight.shape, weight, bias).sum(3)


def _merged(full: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    if half is not None:
        return nearest_norm(full, half, weight, bias)
    return F.layer_norm(full, weight.shape, weight, bias)


def _gated(y: Tensor, scale: Tensor | None, gate: Tensor | None) -> Tensor:
    y = y if scale is None else y * scale[:, None, None]
    return y if gate is None else y * F.silu(gate)


def _pair(x: Tensor, w: Tensor, b: Tensor | None, v: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
    return F.silu(convolved(x, w, b)), F.silu(convolved(x, v, c, stride=2))


#: Operator -> ours, its definition, and which of the inputs may be None.
OPTIONAL: dict[str, tuple[Callable, Callable, tuple[int, ...]]] = {
    'merge-norm-bilinear': (merge_norm_bilinear, _merged_each, (1,)),
    'merge-nearest-norm': (merge_nearest_norm, _merged, (1,)),
    'depthwise-silu': (depthwise_silu, lambda x, w, b: F.silu(convolved(x, w, b)), (2,)),
    'depthwise-silu-pair': (partial(joined, depthwise_silu_pair), partial(joined, _pair), (2, 4)),
    'depthwise-residual-gelu': (depthwise_residual_gelu, lambda x, w, b: F.gelu(x + convolved(x, w, b)), (2,)),
    'scale-and-gate': (scale_and_gate, _gated, (1, 2)),
}


def absent_in_operators(settings: Settings) -> dict:
    errors = Errors()
    size = (1, 3, 2, 3) if settings.tiny else (2, 9, 7, 130)
    for (name, (ours, definition, indices)), dtype in product(OPTIONAL.items(), DTYPES):
        inputs = operator_inputs(name, size, dtype)
        names = [f'input{i}' for i in range(len(inputs))]
        for case, given in without(indices, inputs):
            if name == 'scale-and-gate' and given[1] is given[2] is None:
                continue  # it is its input then
            case = f'{name} {case} in {kind(dtype)}'
            compare(errors, ours, definition, given, names, settings.device, case, TOLERANCES[dtype])
    return errors.figures()


CHECKS = [
    *(
        Step(f'channels/scan2d/{channels}/{kind(dtype)}', partial(channels_of_scan, channels=channels, dtype=dtype))
        for channels in CHANNELS
        for dtype in DTYPES
    ),
    *(Step(f'channels/{name}', partial(channels_of_operator, name=name)) for name in OPERATORS),
    *(
        Step(f'training/states/{n}/{kind(dtype)}', partial(states_in_training, d_state=n, dtype=dtype))
        for n in (16, 24)
        for dtype in DTYPES
    ),
    Step('absent/selective_scan', absent_in_sequences),
    Step('absent/block', absent_in_operators),
]
