"""Which implementation of the scan runs, and why."""

from __future__ import annotations

import logging
import os
from functools import cache

import torch

#: Environment variable that forces an implementation on every device.
VARIABLE = 'MMMSVMAMBA_BACKEND'
BACKENDS = ('reference', 'torch', 'triton')
#: The oldest Triton that compiles the kernels: they hold registers in tuples.
TRITON = (3, 3)
#: The oldest NVIDIA GPUs for which Triton makes code.
COMPUTE_CAPABILITY = (7, 0)

_log = logging.getLogger(__name__)
#: Device and variable -> implementation: decided and logged once.
_chosen: dict[tuple[torch.device, str], str] = {}


def choose(device: torch.device | str) -> str:
    """Names the implementation that tensors on `device` run through.

    CUDA and HIP tensors run `triton`, CPU tensors `torch` (slabs). The variable MMMSVMAMBA_BACKEND forces `reference`
    (plain loops) or `torch` on any device, and `triton`, which on a CPU runs in Triton's interpreter alone
    (TRITON_INTERPRET=1, set before Python starts; for tests).

    Raises:
        ValueError: The variable holds an unknown name.
        RuntimeError: The implementation that the device needs is missing; there is no silent fallback.
    """
    asked = device if isinstance(device, torch.device) else torch.device(device), os.environ.get(VARIABLE, '')
    name = _chosen.get(asked)
    if name is None:
        name, reason = _decide(*asked)
        _log.info('selective scan runs on the %s backend: %s', name, reason)
        _chosen[asked] = name
    return name


# what torch.compiler.assume_constant_result does; called here it would import the compiler along with this package
choose._dynamo_marked_constant = True


def on_triton(device: torch.device) -> bool:
    """Whether tensors on `device` run through the Triton kernels; meta tensors run through nothing."""
    return device.type != 'meta' and choose(device) == 'triton'


def describe(device: torch.device | str = 'cpu') -> str:
    """One line for people: the implementation for `device` and the reason, or why there is none."""
    try:
        name, reason = _decide(torch.device(device), os.environ.get(VARIABLE, ''))
    except (ValueError, RuntimeError) as error:
        return f'none: {error}'
    return f'{name} ({reason})'


def _decide(device: torch.device, forced: str) -> tuple[str, str]:
    if forced and forced not in BACKENDS:
        raise ValueError(f'{VARIABLE}={forced!r} is unknown; choose one of {", ".join(BACKENDS)} or unset it')
    if forced in ('reference', 'torch'):
        return forced, f'forced by {VARIABLE}'
    if device.type == 'cpu' and not forced:
        return 'torch', 'CPU tensors; needs neither a GPU nor a compile step'
    if device.type == 'cpu' and not _interpreted():
        raise RuntimeError(
            f'{VARIABLE}=triton, but the tensors are on the CPU, where Triton has an interpreter for tests and nothing '
            f'else; unset {VARIABLE}, or set TRITON_INTERPRET=1 before Python starts to run the kernels slowly'
        )
    if device.type not in ('cpu', 'cuda'):
        raise RuntimeError(
            f'there are no Triton kernels for {device.type} tensors; set {VARIABLE}=torch to run the algorithm of the '
            'CPU path on this device, or move model and data to the CPU'
        )
    version = _triton_version()
    if version is None or _release(version) < TRITON:
        floor = '.'.join(map(str, TRITON))
        found = 'Triton is not installed' if version is None else f'this is Triton {version}'
        raise RuntimeError(
            f'the scan of {device.type} tensors needs Triton {floor} or newer, and {found}; install it '
            f"(pip install 'triton>={floor}'), or set {VARIABLE}=torch to run the algorithm of the CPU path on this "
            'device'
        )
    capability = _compute_capability(device)
    if capability is not None and capability < COMPUTE_CAPABILITY:
        found, floor = ('.'.join(map(str, x)) for x in (capability, COMPUTE_CAPABILITY))
        raise RuntimeError(
            f'{device} has compute capability {found}, and Triton compiles for {floor} and newer; set {VARIABLE}=torch '
            'to run the algorithm of the CPU path on this device'
        )
    return 'triton', f'forced by {VARIABLE}' if forced else f'GPU tensors; Triton {version}'


def _compute_capability(device: torch.device) -> tuple[int, int] | None:
    """Of an NVIDIA GPU that is here."""
    if device.type != 'cuda' or torch.version.hip is not None or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_capability(device)


def _interpreted() -> bool:
    return os.environ.get('TRITON_INTERPRET', '').lower() in ('1', 'true', 'yes', 'on', 'y')


@cache
def _triton_version() -> str | None:
    # asked of the module: the builds for AMD have other distribution names
    try:
        import triton
    except ImportError:
        return None
    return triton.__version__


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split('.')[:2]
    return int(major), int(minor)
