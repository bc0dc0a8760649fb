"""Reads checkpoint files without running code that they may hold.

A checkpoint is a pickle, and a pickle can call any function of the machine that opens it. Here only tensors, plain
containers and a short list of harmless classes come through: what mmengine writes into its own checkpoints, and a
stand-in for the configuration node in the published VMamba and MSVMamba files. There is no fallback to an unrestricted
load.
"""

from __future__ import annotations

import os
import pickle
import types
from pathlib import Path

import numpy as np
import torch


class CheckpointError(ValueError):
    """A checkpoint file that cannot be read, or that does not fit the model."""


class ConfigNode(dict):
    """Stands in for yacs.config.CfgNode, which the published files keep their training configuration in."""


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
        reason = str(error).split('\n')[0]
        raise CheckpointError(
            f'{path} holds objects beyond tensors and plain values, or is damaged, and was not loaded ({reason}). '
            'Loading it could run code that it brings. If you trust its source, extract its state dict where it was '
            'written: '
            "torch.save({'state_dict': model.state_dict()}, 'weights.pth')"
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        reason = str(error).split('\n')[0]
        raise CheckpointError(
            f'{path} ({path.stat().st_size:,} bytes) cannot be read as a checkpoint; it may be truncated or no '
            f'PyTorch file ({reason}). '
            'Download it again.'
        ) from None


def _restricted_load(path: Path, map_location) -> dict:
    allowed = _allowed_globals()
    if hasattr(
        torch.serialization, 'get_unsafe_globals_in_checkpoint'
    ):  # torch >= 2.6: safe_globals takes (object, name) pairs
        with torch.serialization.safe_globals([(value, name) for name, value in allowed.items()]):
            return torch.load(path, map_location=map_location, weights_only=True)
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:
        # older releases cannot be told of further classes: the same rule through an unpickler of our own
        return torch.load(
            path, map_location=map_location, weights_only=False, pickle_module=_restricted_pickle(allowed)
        )


def _allowed_globals() -> dict[str, object]:
    """Name in the pickle -> what it becomes."""
    multiarray = (np._core if hasattr(np, '_core') else np.core).multiarray
    allowed = {
        'yacs.config.CfgNode': ConfigNode,
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
    }
    for core in ('numpy.core', 'numpy._core'):  # files of either numpy generation open in the other
        allowed[f'{core}.multiarray._reconstruct'] = multiarray._reconstruct
        allowed[f'{core}.multiarray.scalar'] = multiarray.scalar
    for code in ('bool', 'int32', 'int64', 'uint8', 'float32', 'float64'):
        cls = type(np.dtype(code))
        allowed[f'{cls.__module__}.{cls.__qualname__}'] = cls
    try:
        from mmengine.logging import HistoryBuffer
    except ImportError:
        return allowed
    allowed['mmengine.logging.history_buffer.HistoryBuffer'] = HistoryBuffer

    def statistic(owner, name):
        # a HistoryBuffer pickles its methods as getattr(HistoryBuffer, name); an unrestricted getattr would reach
        # everything
        if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
            raise pickle.UnpicklingError(f'getattr of {owner!r}, {name!r} is not allowed')
        return getattr(owner, name)

    allowed['builtins.getattr'] = statistic
    return allowed


def _restricted_pickle(allowed: dict[str, object]) -> types.ModuleType:
    """A stand-in for the pickle module that knows the allowed names and what rebuilds tensors, nothing else."""
    tensors = {
        'collections.OrderedDict',
        'torch._utils._rebuild_tensor_v2',
        'torch._utils._rebuild_parameter',
        'torch.Size',
        'torch.device',
        'torch.serialization._get_layout',
    }

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str):
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
