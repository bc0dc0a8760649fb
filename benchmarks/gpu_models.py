"""Checks of whole models: features and the gradients of all parameters and of the images, Triton against torch.

Both run the same weights on the same images on the same device. In float32 they may differ by the order of sums alone.
Under bfloat16 autocast roundings differ, and how much that moves a gradient depends on the model: there both are
compared with float32, and ours may be no further from it than torch's own operators are, within a factor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial

import torch
from forced import forced
from gpu_compare import Errors, far
from scan_cases import output_gradient
from torch import Tensor, nn
from worker import Settings, Step, need_packages

#: Name -> class and architecture: both families of MSVMamba; 16 states; four routes; sequences in both directions.
MODELS = {
    'msvmamba-nano': ('MSVMamba', 'nano'),
    'msvmamba-tiny-v3': ('MSVMamba', 'tiny-v3'),
    'vmamba-tiny-v0': ('VMamba', 'tiny-v0'),
    'vmamba-tiny-s1l8': ('VMamba', 'tiny-s1l8'),
    'vim-tiny': ('Vim', 'tiny'),
}
#: Sides that are no multiples of 32: maps of odd size, and half maps whose size is rounded up. Those for the
#: interpreter have few pixels left.
IMAGES, TINY_IMAGES = (2, 3, 100, 132), (1, 3, 20, 12)
#: Of the largest value of every tensor. Sums of 10³ to 10⁴ terms in float32 differ by some 10⁻⁶ with their order, and
#: 24 blocks pass that on; against float64 torch's own operators are off by up to 7 · 10⁻⁶.
TOLERANCE = 1e-4
#: In bfloat16: so many times as far from float32 as torch's operators, and a floor for tensors that those happen to hit
#: well: how far they are on the mean of all tensors, but two roundings (2⁻⁸ each) at least. Maps of a few pixels leave
#: hardly anything to average over.
TIMES, FLOOR, TINY_FLOOR = 2.0, 2**-7, 2**-3


def make(name: str, settings: Settings) -> nn.Module:
    """A model of random weights; where the interpreter runs it, two stages of a block each, or one block."""
    family, arch = MODELS[name]
    options = {}
    if settings.tiny and family == 'Vim':
        arch, options = dict(base=arch, depth=1, embed_dims=32), dict(out_indices=[0], out_strides=[16])
    elif settings.tiny:
        arch, options = dict(base=arch, depths=[1, 1, 1, 1], dims=16), dict(out_indices=[0, 1])
    return build(settings, family, arch, **options)


def build(settings: Settings, family: str, arch: str | Mapping, **options) -> nn.Module:
    """A backbone of random weights on the device, where the packages that it needs are installed."""
    need_packages('mmengine', 'mmcv')
    import mmmsvmamba

    torch.manual_seed(0)
    return getattr(mmmsvmamba, family)(arch, **options).to(settings.device)


def images_for(settings: Settings, seed: int = 0) -> Tensor:
    rand = torch.Generator().manual_seed(seed)
    return torch.randn(TINY_IMAGES if settings.tiny else IMAGES, generator=rand).to(settings.device)


def exact() -> AbstractContextManager:
    """Convolutions in float32 as they are on a CPU, and by the same algorithm every time."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def passes(model: nn.Module, images: Tensor, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Features and all gradients, by name; under autocast where a dtype is given."""
    images = images.detach().requires_grad_()
    model.zero_grad(set_to_none=True)
    with torch.autocast(images.device.type, dtype, enabled=dtype is not None):
        maps = model(images)
    torch.autograd.backward(maps, [output_gradient(y.detach().cpu()).to(y.device) for y in maps])
    found = {f'map {i}': y.detach() for i, y in enumerate(maps)}
    found['gradient of the images'] = images.grad
    return found | gradients(model)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Of all parameters that want one; they must have one."""
    wanted = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    missing = [name for name, grad in wanted.items() if grad is None]
    if missing:
        raise AssertionError(f'no gradient came to {", ".join(missing)}')
    return {f'gradient of {name}': grad.detach().clone() for name, grad in wanted.items()}


def compare_single(errors: Errors, ours: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        errors.add(name, far(ours[name], value, float('inf')), TOLERANCE)


def compare_half(
    errors: Errors,
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    exactly: Mapping[str, Tensor],
    least: float = FLOOR,
) -> dict:
    """Adds how far ours are from float32.

    Args:
        ours, theirs, exactly: Tensors by name: of the kernels and of torch in half precision, of torch in float32.
        least: The floor at least.

    Returns:
        How far torch's are at most and on the (quadratic) mean, and ours.
    """
    assert ours.keys() == theirs.keys() == exactly.keys()
    off = {name: far(theirs[name], value) for name, value in exactly.items()}
    mean = _mean(off.values())
    for name, value in exactly.items():
        errors.add(name, far(ours[name], value), TIMES * off[name] + max(mean, least))
    of_ours = _mean(errors.largest[name] for name in exactly)
    errors.add('mean of all tensors', of_ours, TIMES * mean + least)
    return {'largest_error_of_torch': max(off.values()), 'mean_error_of_torch': mean, 'mean_error': of_ours}


def _mean(values: Iterable[float]) -> float:
    squares = [value**2 for value in values]
    return (sum(squares) / len(squares)) ** 0.5


def summary(errors: Errors) -> dict:
    """The largest errors alone: a model has hundreds of tensors."""
    figures = errors.figures()
    largest = sorted(figures['errors'], key=figures['errors'].get)[-5:]
    found = {'largest_error': figures['largest_error'], 'tensors': len(figures['errors'])}
    return found | {'errors': {name: figures['errors'][name] for name in reversed(largest)}}


def single(settings: Settings, name: str) -> dict:
    model, images = make(name, settings), images_for(settings)
    errors = Errors()
    with exact():
        with forced('torch'):
            expected = passes(model, images)
        compare_single(errors, passes(model, images), expected)
    return summary(errors)


def half(settings: Settings, name: str, dtype: torch.dtype = torch.bfloat16) -> dict:
    model, images = make(name, settings), images_for(settings)
    errors = Errors()
    with exact():
        with forced('torch'):
            exactly, theirs = passes(model, images), passes(model, images, dtype)
        least = TINY_FLOOR if settings.tiny else FLOOR
        found = compare_half(errors, passes(model, images, dtype), theirs, exactly, least)
    return summary(errors) | found


CHECKS = [
    *(Step(f'models/float32/{name}', partial(single, name=name)) for name in MODELS),
    *(Step(f'models/bfloat16/{name}', partial(half, name=name)) for name in MODELS),
]
