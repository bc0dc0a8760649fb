"""Settings of the plan that only a GPU can decide, each tried in turn: a row of seconds for every one.

A setting is a constant of `triton_plan` that is replaced while a step runs and put back however it ends. Plans are kept
by the settings they were made with; those of a tried one are dropped all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

import gpu_kernels
import torch
from worker import Settings, Step

from mmmsvmamba.kernels import triton_launcher, triton_plan

WARPS, CHUNKS = (8, 16, 32), (64, 256)
PROGRAM_CHANNELS = (64, 128)
MODES = ('forward', 'training-forward', 'backward')


def of_channels(channels: int) -> dict:
    """One state, that of MSVMamba, on programs of so many channels."""
    return {
        name: tuple(x._replace(channels=channels) if x.states == 1 else x for x in getattr(triton_plan, name))
        for name in ('FORWARD', 'BACKWARD')
    }


#: Name -> constants of `triton_plan`.
SETTINGS = {
    **{f'warps-{warps}+chunk-{chunk}': dict(WARPS=warps, CHUNK=chunk) for warps in WARPS for chunk in CHUNKS},
    **{f'channels-{channels}': of_channels(channels) for channels in PROGRAM_CHANNELS},
    'dt-projected-inside': dict(LOW_RANK=max(triton_plan.LOW_RANK, gpu_kernels.RANK)),
    # the product is part of the operator's time
    'dt-projected-outside': dict(LOW_RANK=0),
}


@contextmanager
def tried(constants: dict) -> Iterator[None]:
    """A context in which the plan has other constants."""
    try:
        with mock.patch.multiple(triton_plan, **constants):
            yield
    finally:
        triton_launcher.forget()


def row(settings: Settings, constants: dict) -> dict:
    """Seconds of both scans of a block of stage 1 by shape and pass, in bfloat16 at low rank; those in use, too."""
    gpu_kernels.need_cuda(settings)
    found = {'setting': {name: str(value) for name, value in constants.items()}}
    used = {name: getattr(triton_plan, name) == value for name, value in constants.items()}
    found['in_use'] = all(used.values())
    with tried(constants):
        for shape in gpu_kernels.SHAPES:
            for mode in MODES:
                stage = partial(gpu_kernels.stage, shape=shape, mode=mode, low_rank=True, dtype=torch.bfloat16)
                found[f'{shape}/{mode}'] = stage(settings, budget=0.15)['seconds']
    return found


TIMINGS = [Step(f'time/settings/{name}', partial(row, constants=constants)) for name, constants in SETTINGS.items()]
