"""Which implementation of the scan runs, and why."""

from __future__ import annotations

import logging
import os
from functools import cache

import torch

#: Environment variable that forces an implementation on every device.
VARIABLE = 'MMMSVMAMBA_BACKEND'
BACKENDS = ('reference', 'torch', 'triton')

_log = logging.getLogger(__name__)


def choose(device: torch.device | str) -> str:
    """Names the implementation that tensors on `device` run through.

    CPU tensors run `torch` (slabs); `reference` (plain loops) and `torch` can be forced on any device by the variable
    MMMSVMAMBA_BACKEND.

    Raises:
        ValueError: The variable holds an unknown name.
        RuntimeError: The implementation that a GPU needs is missing; there is no silent fallback.
    """
    name, reason = _decide(torch.device(device).type, os.environ.get(VARIABLE, ''))
    _log_once(name, reason)
    return name


def describe(device: torch.device | str = 'cpu') -> str:
    """One line for people: the implementation for `device` and the reason, or why there is none."""
    try:
        name, reason = _decide(torch.device(device).type, os.environ.get(VARIABLE, ''))
    except (ValueError, RuntimeError) as error:
        return f'none: {error}'
    return f'{name} ({reason})'


def _decide(device: str, forced: str) -> tuple[str, str]:
    if forced and forced not in BACKENDS:
        raise ValueError(f'{VARIABLE}={forced!r} is unknown; choose one of {", ".join(BACKENDS)} or unset it')
    if forced in ('reference', 'torch'):
        return forced, f'forced by {VARIABLE}'
    if device == 'cpu' and forced != 'triton':
        return 'torch', 'CPU tensors; needs neither a GPU nor a compile step'
    raise RuntimeError(
        f'there are no Triton kernels for {device} tensors in this version; set {VARIABLE}=torch to run the algorithm '
        'of the CPU path on this device, or move model and data to the CPU'
    )


@cache
def _log_once(name: str, reason: str) -> None:
    _log.info('selective scan runs on the %s backend: %s', name, reason)
