"""The machine that results were taken on, and whether a device can be used on it."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
from pathlib import Path

import torch

from mmmsvmamba.kernels import backend


def usable_device(text: str) -> torch.device:
    """The device of a command line.

    Raises:
        argparse.ArgumentTypeError: No device that torch knows and sees.
    """
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f'{text!r} is no device; give cpu, cuda or cuda:N') from error
    if device.type not in ('cpu', 'cuda'):
        raise argparse.ArgumentTypeError(f'times and memory are measured on cpu and cuda, not on {device.type}')
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(
            f'torch {torch.__version__} sees {torch.cuda.device_count()} GPUs, and {text} is none of them; '
            'CUDA_VISIBLE_DEVICES or a torch that was built for CPUs may hide one. Without a GPU: --device cpu'
        )
    return device


def describe(device: torch.device) -> dict:
    """What decides on the times: processor, threads, device, versions, the implementation of the scan."""
    info = Path('/proc/cpuinfo')
    model = re.search(r'^model name\s*: (.*)$', info.read_text(), re.MULTILINE) if info.exists() else None
    found = {
        'cpu': model[1] if model else platform.processor(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'device': torch.cuda.get_device_name(device) if device.type == 'cuda' else str(device),
        'torch': torch.__version__,
        'python': platform.python_version(),
        'scan': backend.describe(device),
    }
    if importlib.util.find_spec('triton') is not None:
        import triton

        found['triton'] = triton.__version__
    return found
