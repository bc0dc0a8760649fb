"""Whole backbones on a GPU: ours, Swin-T and ConvNeXt-T in images per second and peak memory, as images grow too.

bfloat16 autocast and channels_last for all. Swin-T and ConvNeXt-T are those of mmpretrain and, where it is installed,
of timm: which is faster depends on versions, and the faster one counts. Ours are also broken down into operators.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial

import breakdown
import torch
from fresh_process import measure
from registry import Work
from torch import Tensor, nn
from worker import Settings, Skip, Step

#: Name -> the packages that it needs.
MODELS = {
    'msvmamba-t': ('mmengine', 'mmcv'),
    'msvmamba-t-v3': ('mmengine', 'mmcv'),
    'swin-t': ('mmpretrain',),
    'convnext-t': ('mmpretrain',),
    'timm-swin-t': ('timm',),
    'timm-convnext-t': ('timm',),
}
BATCH = 128
#: Sides of the images on which growth is measured, and how many images: as many for all sides.
SIDES, GROWTH_BATCH = (224, 512, 1024, 1536), 4
#: What is broken down, of `breakdown.CASES`.
BROKEN_DOWN = ('block/tiny/full', 'block/tiny-v3/full', 'backbone/tiny/full', 'backbone/tiny-v3/full')


def make(name: str) -> nn.Module:
    """A backbone that gives its last map or features."""
    if name.startswith('msvmamba'):
        from mmmsvmamba import MSVMamba

        arch = 'tiny-v3' if name.endswith('v3') else 'tiny'
        return MSVMamba(arch, out_indices=(3,))
    if name.startswith('timm'):
        import timm

        # of any size of image, as the others are
        options = dict(strict_img_size=False) if 'swin' in name else {}
        names = {'timm-swin-t': 'swin_tiny_patch4_window7_224', 'timm-convnext-t': 'convnext_tiny'}
        return timm.create_model(names[name], num_classes=0, **options)
    from mmpretrain.models.backbones import ConvNeXt, SwinTransformer

    import mmmsvmamba  # noqa: F401  makes mmpretrain importable everywhere

    return SwinTransformer('tiny') if name == 'swin-t' else ConvNeXt('tiny')


def total(y: Tensor | tuple[Tensor, ...]) -> Tensor:
    return (y[-1] if isinstance(y, (tuple, list)) else y).float().sum()


def build(device: torch.device, name: str, size: int, batch: int, train: bool, compiled: bool) -> Work:
    torch.manual_seed(0)
    model = make(name).to(device, memory_format=torch.channels_last).train(train)
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    forward = torch.compile(model) if compiled else model

    def infer() -> object:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            return forward(images)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            loss = total(forward(images))
        loss.backward()

    return Work(step if train else infer, images=batch, pixels=batch * size * size)


def need(settings: Settings, packages: Sequence[str]) -> None:
    if settings.device.type != 'cuda':
        raise Skip('times are taken on a GPU')
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise Skip(f'{" and ".join(missing)} not installed')
    torch.cuda.empty_cache()


def backbone(settings: Settings, name: str, budget: float = 2.0, min_turns: int = 5, **options) -> dict:
    need(settings, MODELS[name])
    return measure(partial(build, name=name, **options), settings.device, None, budget=budget, min_turns=min_turns)


def operators(settings: Settings, case: str, size: int = 224, batch: int = BATCH) -> dict:
    need(settings, MODELS['msvmamba-t'])
    run = breakdown.build(case, settings.device, size, batch, autocast=True)
    return {'size': size, 'batch': batch} | breakdown.measure(run, settings.device)


def _step(name: str, train: bool, compiled: bool) -> Step:
    mode = f'{"train" if train else "infer"}/{"compiled" if compiled else "eager"}'
    run = partial(backbone, name=name, size=224, batch=BATCH, train=train, compiled=compiled)
    # those of others may fail in their own ways
    return Step(f'time/backbone/{mode}/224/{name}', run, required=name.startswith('msvmamba'))


def _growth_step(name: str, train: bool, side: int) -> Step:
    # a point of a curve may be rougher than a figure that is compared
    options = dict(size=side, batch=GROWTH_BATCH, train=train, compiled=False, budget=1.0, min_turns=3)
    run = partial(backbone, name=name, **options)
    step = f'time/growth/{name}/{"train" if train else "forward"}/{side}'
    return Step(step, run, required=name.startswith('msvmamba'))


TIMINGS = [
    *(
        _step(name, train=train, compiled=compiled)
        for compiled in (False, True)
        for train in (False, True)
        for name in MODELS
    ),
    *(Step(f'time/breakdown/{case}', partial(operators, case=case)) for case in BROKEN_DOWN),
    *(_growth_step(name, train, side) for train in (False, True) for side in SIDES for name in MODELS),
]
