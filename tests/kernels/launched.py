"""What dispatch launches, as Triton would compile it: the published models, and every argument that may be absent.

Nothing runs on a GPU: a stand-in takes the driver's place and notes what would be compiled, with types, constants and
what is known of alignment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import product
from unittest import mock

import torch
from driver_stand_in import Compiled, stand_in
from scan_cases import cast, leaves, map_inputs, selective_inputs
from torch import Tensor

from mmmsvmamba import MSVMamba, Vim, VMamba
from mmmsvmamba.kernels import (
    depthwise_residual_gelu,
    depthwise_silu,
    depthwise_silu_pair,
    merge_nearest_norm,
    merge_norm_bilinear,
    scale_and_gate,
    scan2d,
    selective_scan,
    triton_plan,
)

#: Every architecture, and what leaves one block in each stage of it.
ARCHS = [(family, arch) for family in (MSVMamba, VMamba, Vim) for arch in family.arch_settings]
#: Dtypes of a network: bfloat16 autocast and float32.
AUTOCAST = {'bf16': torch.bfloat16, 'fp32': None}
SPLITS = (False, True)


def shallow(family: type, arch: str) -> torch.nn.Module:
    """A model as wide as published, with one block of each kind."""
    depth = dict(depth=1) if family is Vim else dict(depths=[1] * 4)
    options = dict(out_type='cls_token') if family is Vim else {}
    return family(dict(base=arch, **depth), **options)


def run(function: Callable[..., object], inputs: list[Tensor | None], train: bool) -> None:
    """A call, with gradients of all inputs or without any."""
    if not train:
        with torch.no_grad():
            function(*inputs)
        return
    inputs = leaves(inputs)
    y = function(*inputs)
    total = sum(x.float().sum() for x in (y if isinstance(y, tuple) else (y,)))
    total.backward()


def of_model(family: type, arch: str, autocast: torch.dtype | None) -> list[Compiled]:
    """What a training step and an inference launch."""
    context = nullcontext() if autocast is None else torch.autocast('cpu', autocast)
    model = shallow(family, arch)
    with stand_in() as noted, context:
        for split, train in product(SPLITS, (True, False)):
            # several chunks from the shortest sequence on
            with mock.patch.multiple(triton_plan, SPLIT=split, CHUNK=1):
                run(model.train(train), [torch.zeros(1, 3, 64, 64)], train)
    return noted.compiled


def _operators(channels: int) -> Iterator[tuple[str, Callable[..., object], list[Tensor | None]]]:
    """Calls of the operators around the scan with every choice of arguments that may be None."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape)

    x, half, vector = zeros(1, 5, 6, channels), zeros(1, 3, 3, channels), zeros(channels)
    kernel, half_kernel = zeros(channels, 1, 3, 3), zeros(channels, 1, 7, 7)
    for bias in (vector, None):
        yield 'depthwise_silu', depthwise_silu, [x, kernel, bias]
        yield 'depthwise_residual_gelu', depthwise_residual_gelu, [x, kernel, bias]
        for half_bias in (vector, None):
            yield 'depthwise_silu_pair', depthwise_silu_pair, [x, kernel, bias, half_kernel, half_bias]
    for scale, gate in ((zeros(1, channels), x), (zeros(1, channels), None), (None, x)):
        yield 'scale_and_gate', scale_and_gate, [x, scale, gate]
    for lower in (half, None):
        yield 'merge_nearest_norm', merge_nearest_norm, [x, lower, vector, vector]
        for routes in (1, 2, 3, 4):
            low = None if lower is None else lower.unsqueeze(3).expand(-1, -1, -1, routes, -1)
            yield 'merge_norm_bilinear', merge_norm_bilinear, [x.unsqueeze(3), low, vector, vector]


def _scans(channels: int) -> Iterator[tuple[str, Callable[..., object], list[Tensor | None]]]:
    """Scans with every choice of arguments that may be None, and with all states that launches are made for."""
    # 24 states are 16 and 8 in the forward pass, three times 8 in the backward
    for d_state, skip, bias in product((1, 24), (True, False), (True, False)):
        # without softplus where nothing is absent: one thing at a time
        for softplus in (True, False) if skip and bias else (True,):
            inputs = selective_inputs(1, channels, 40, d_state, skip=skip, bias=bias)
            yield f'selective_scan N{d_state}', partial(selective_scan, delta_softplus=softplus), inputs
    for d_state, rank, summed in product((1, 24), (6, 7, None), (False, True)):
        inputs = map_inputs(1, 5, 6, channels, rank=rank, d_state=d_state)
        scan = partial(scan2d, routes=[2, 1, 3], group_sizes=[3], summed=summed)
        yield f'scan2d N{d_state}', scan, inputs


def of_arguments(channels: int, dtype: torch.dtype) -> list[Compiled]:
    """What the operators launch with and without what may be absent."""
    with stand_in() as noted:
        for _, function, inputs in (*_operators(channels), *_scans(channels)):
            for split, train in product(SPLITS, (True, False)):
                with mock.patch.multiple(triton_plan, SPLIT=split, CHUNK=1):
                    run(function, cast(inputs, dtype), train)
    return noted.compiled
