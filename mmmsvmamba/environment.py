"""What must hold before the OpenMMLab libraries are used, for the original packages and their forks alike.

Imports nothing of OpenMMLab by itself: it runs on a machine that has torch alone.
"""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import torch

MIN_PYTHON = (3, 10)
MIN_TORCH = (2, 1)

# Keeps the operator schemas that `_declare_torchvision_ops` adds alive: they go with their Library object.
_declared_ops: torch.library.Library | None = None


def check_versions() -> None:
    """Checks the interpreter and torch against the oldest versions this package runs on.

    Raises:
        RuntimeError: naming the version found and the floor.
    """
    if sys.version_info < MIN_PYTHON:
        raise RuntimeError(
            f'mmmsvmamba needs Python >= {_dotted(MIN_PYTHON)}, found '
            f'{_dotted(sys.version_info[:3])} at {sys.executable}.'
        )
    found = tuple(int(part) for part in torch.__version__.split('+')[0].split('.')[:2])
    if found < MIN_TORCH:
        raise RuntimeError(
            f'mmmsvmamba needs torch >= {_dotted(MIN_TORCH)}, found {torch.__version__}. '
            'Install a newer torch (https://pytorch.org/get-started/locally/), then build '
            'mmcv against it again.'
        )


def prepare() -> None:
    """Makes the installed OpenMMLab libraries importable and findable; does nothing where they already are.

    Cheap (about a millisecond) and idempotent. Call it before mmdet, mmseg or mmpretrain is imported and before a
    config with `_base_ = 'mmseg::…'` is read.
    """
    _declare_torchvision_ops()
    _name_mmseg()


def _declare_torchvision_ops() -> None:
    """Lets a torchvision import whose compiled operators do not load, as a CUDA wheel beside a CPU torch.

    torchvision then dies at import, "operator torchvision::nms does not exist", and mmdet.models, mmpretrain and
    mmengine's environment report die with it, although none of them needs those operators. Schemas are enough.
    """
    global _declared_ops
    spec = importlib.util.find_spec('torchvision')
    if 'torchvision' in sys.modules or spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob('_C*.so'):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
    if hasattr(torch.ops.torchvision, 'nms'):
        return
    _declared_ops = torch.library.Library('torchvision', 'FRAGMENT')
    for name in ('nms', 'qnms'):
        _declared_ops.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')


def _name_mmseg() -> None:
    """Tells mmengine that the scope mmseg is the installed package mmseg, whatever distribution it came with.

    mmengine looks for a distribution called mmsegmentation, so that `mmseg::…` fails with a fork of another name.
    """
    if importlib.util.find_spec('mmengine') is None or importlib.util.find_spec('mmseg') is None:
        return
    try:
        importlib.metadata.version('mmsegmentation')
    except importlib.metadata.PackageNotFoundError:
        from mmengine.config.utils import MODULE2PACKAGE

        MODULE2PACKAGE['mmseg'] = 'mmseg'


def _dotted(version: tuple[int, ...]) -> str:
    return '.'.join(map(str, version))
