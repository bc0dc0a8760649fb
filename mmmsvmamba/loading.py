"""Reads checkpoint files without running code that they may hold.

A checkpoint is a pickle, and a pickle can call any function of the machine that opens it. Here only tensors, plain
containers and a short list of harmless classes come through: what mmengine writes into its own checkpoints, a stand-in
for the configuration node in the published VMamba and MSVMamba files, and the options in those of Vim. There is no
fallback to an unrestricted load.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import struct
import types
from _compat_pickle import IMPORT_MAPPING
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch


class CheckpointError(ValueError):
    """A checkpoint file that cannot be read, or that does not fit the model."""


#: What unpickling raises on bytes that are no pickle, besides UnpicklingError.
_BROKEN = (
    RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError, AssertionError, ImportError,
    ArithmeticError, MemoryError, struct.error,
)  # fmt: skip


def load_file(path: str | os.PathLike, map_location: str | torch.device | None = 'cpu') -> dict:
    """Reads a checkpoint file safely.

    Args:
        path: A local file.
        map_location: Where tensors go.

    Returns:
        The object in the file.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is truncated, is no checkpoint, or holds objects that are not allowed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'no checkpoint at {path}')
    try:
        return _restricted_load(path, map_location)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path} holds objects beyond tensors and plain values, or is damaged, and was not loaded '
            f'({_reason(error)}). '
            'Loading it could run code that it brings. If you trust its source, extract its state dict where it was '
            'written: '
            "torch.save({'state_dict': model.state_dict()}, 'weights.pth')"
        ) from None
    except _BROKEN as error:
        raise CheckpointError(
            f'{path} ({path.stat().st_size:,} bytes) cannot be read as a checkpoint; it may be truncated or no '
            f'PyTorch file ({_reason(error)}). '
            'Download it again.'
        ) from None


def _reason(error: Exception) -> str:
    """What was found, without torch's advice to switch the check off."""
    text = str(error)
    if found := re.search(r'GLOBAL (\S+)', text):
        return f'{found[1]} is not allowed'
    if found := re.search(r'WeightsUnpickler error:\s*(.+)', text):
        return found[1]
    return text.split('\n')[0] or type(error).__name__


def _restricted_load(path: Path, map_location) -> dict:
    allowed = _allowed_globals()
    # torch 2.6 brought (object, name) pairs to safe_globals, and closed a hole in weights_only (CVE-2025-32434)
    if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        with torch.serialization.safe_globals([(value, name) for name, value in allowed.items()]):
            return torch.load(path, map_location=map_location, weights_only=True)
    # before it, the same rule through an unpickler of our own
    module = _restricted_pickle(allowed)
    return torch.load(path, map_location=map_location, weights_only=False, pickle_module=module)


def _allowed_globals() -> dict[str, object]:
    """Name in the pickle -> what it becomes."""
    # asked of numpy: the module they are in differs between 1.25, 1.26 and 2
    reconstruct, scalar = (value.__reduce__()[0] for value in (np.zeros(1), np.float64(0)))
    allowed = {
        # the configuration in the published files; torch fills no dict of another class
        'yacs.config.CfgNode': OrderedDict,
        # the options in files of DeiT's training script, which Vim's are
        'argparse.Namespace': argparse.Namespace,
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
    }
    for core in ('numpy.core', 'numpy._core'):  # files of either numpy generation open in the other
        allowed[f'{core}.multiarray._reconstruct'] = reconstruct
        allowed[f'{core}.multiarray.scalar'] = scalar
    for code in '?bhilqBHILQefdFD':
        cls = type(np.dtype(code))
        allowed[f'{cls.__module__}.{cls.__qualname__}'] = cls
    try:
        from mmengine.logging import HistoryBuffer
        from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
    except ImportError:
        return allowed

    class History(HistoryBuffer):
        """Becomes a HistoryBuffer, without the statistics in the file, which would replace those of the class."""

        def __setstate__(self, state: dict) -> None:
            super().__setstate__({key: value for key, value in state.items() if key != 'statistics_methods'})
            self.__class__ = HistoryBuffer

    methods = {
        History: ('min', 'max', 'current', 'mean'),
        OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
    }
    allowed |= {
        'mmengine.logging.history_buffer.HistoryBuffer': History,
        'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler': OneCycleParamScheduler,
    }

    def method(owner, name):
        # mmengine pickles methods as getattr(owner, name); an unrestricted getattr would reach everything
        if not isinstance(owner, type) or name not in methods.get(owner, ()):
            raise pickle.UnpicklingError(f'getattr of {owner!r}, {name!r} is not allowed')
        return getattr(owner, name)

    allowed['builtins.getattr'] = method
    return allowed


def _restricted_pickle(allowed: dict[str, object]) -> types.ModuleType:
    """A stand-in for the pickle module that knows the allowed names and what rebuilds tensors, nothing else."""
    tensors = {
        '_codecs.encode',
        'builtins.set',
        'collections.Counter',
        'collections.OrderedDict',
        'torch._utils._rebuild_tensor_v2',
        'torch._utils._rebuild_parameter',
        'torch.Size',
        'torch.device',
        'torch.serialization._get_layout',
    }

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str):
            # torch writes protocol 2, in which modules have the names of Python 2
            module = IMPORT_MAPPING.get(module, module)
            full = f'{module}.{name}'
            if full in allowed:
                return allowed[full]
            is_storage = module in ('torch', 'torch.storage') and name.endswith('Storage')
            is_dtype = module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype)
            if full in tensors or is_storage or is_dtype:
                return super().find_class(module, name)
            raise pickle.UnpicklingError(f'{full} is not allowed')

    module = types.ModuleType('restricted_pickle')
    module.Unpickler = Unpickler
    module.load = lambda file, **kwargs: Unpickler(file, **kwargs).load()
    module.UnpicklingError = pickle.UnpicklingError
    return module
