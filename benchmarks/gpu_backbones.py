"""Whole backbones on a GPU: ours, Swin-T and ConvNeXt-T in images per second and peak memory, as images grow too.

bfloat16 autocast and channels_last for all. The rivals are those of timm, in turns with ours in one process; then those
of mmpretrain, where it is installed: which is faster depends on versions, and the faster one counts. Ours are also
broken down into operators, and the CPU's part of a small batch is taken by itself.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import breakdown
import torch
from fresh_process import measure
from memory import Peak
from registry import Work
from torch import Tensor, nn
from worker import Settings, Skip, Step, need_packages

BATCH = 128
#: Ours, and the rivals that take turns with them, by the package that they are of.
OURS = ('msvmamba-t', 'msvmamba-t-v3')
RIVALS = {'timm': ('timm-swin-t', 'timm-convnext-t'), 'mmpretrain': ('swin-t', 'convnext-t')}
MODELS = (*OURS, *RIVALS['timm'], *RIVALS['mmpretrain'])
#: Sides of the images on which growth is measured, and how many images: as many for all sides.
SIDES, GROWTH_BATCH = (224, 512, 1024, 1536), 4
#: What is broken down, of `breakdown.CASES`.
BROKEN_DOWN = ('backbone/tiny/full', 'backbone/tiny-v3/full', 'block/tiny/full', 'block/tiny-v3/full')
#: Seconds of a turn of several passes, so that the end of the last, which is waited for, counts little.
TURN = 0.15
#: Passes between two waits where the CPU's time is taken: a GPU's queue holds some 1,000 launches, and a thread that
#: fills it waits inside of what is timed. A pass has a few hundred.
CPU_RIVAL, REPEATS = 'timm-swin-t', 2

T = TypeVar('T')


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


def build(
    device: torch.device, name: str, size: int, batch: int, train: bool, compiled: bool, autocast: bool = True
) -> Work:
    torch.manual_seed(0)
    model = make(name).to(device, memory_format=torch.channels_last).train(train)
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    forward = torch.compile(model) if compiled else model

    def infer() -> object:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            return forward(images)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = total(forward(images))
        loss.backward()
        # they count for the peak of this model and not of the next
        model.zero_grad(set_to_none=True)

    return Work(step if train else infer, images=batch, pixels=batch * size * size)


def need_gpu(settings: Settings) -> None:
    if settings.device.type != 'cuda':
        raise Skip('times are taken on a GPU')
    torch.cuda.empty_cache()


def need_models(*names: str) -> None:
    """Skips a step where the packages of these models are missing."""
    for name in names:
        if name in OURS:
            need_packages('mmengine', 'mmcv')
        else:
            need_packages(next(package for package, of_it in RIVALS.items() if name in of_it), of_others=True)


def backbone(settings: Settings, name: str, budget: float = 2.0, min_turns: int = 5, **options) -> dict:
    need_gpu(settings)
    need_models(name)
    return measure(partial(build, name=name, **options), settings.device, None, budget=budget, min_turns=min_turns)


# ---- in turns ----


def seconds_of(work: Work, device: torch.device, passes: int = 1) -> float:
    """Seconds of a pass, of several that are waited for together."""
    begin = time.perf_counter()
    for _ in range(passes):
        work.run()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begin) / passes


def in_turns(works: dict[str, Work], device: torch.device, ours: Sequence[str], budget: float, min_turns: int) -> dict:
    """Times and peaks of pieces of work that take turns in this process.

    Args:
        works: By name.
        device: Where.
        ours: Those of them that are compared with the others.
        budget: Seconds after which no further turn begins.
        min_turns: Turns that each gets however long they take.

    Returns:
        By name 'images_per_second' of the best turn, that of the median one, 'seconds' of a pass, 'growth_mb' at the
        peak of one pass above what was held before, the weights of all of them; 'times_as_fast_as' for each of ours,
        and '<name>_over_faster', against the faster of the others.
    """
    passes, times = {}, {name: [] for name in works}
    for name, work in works.items():
        for _ in range(2):  # compiles, and lets libraries choose
            seconds_of(work, device)
        passes[name] = max(1, math.ceil(min(TURN, budget) / seconds_of(work, device)))
    begin = time.perf_counter()
    while len(times[ours[0]]) < min_turns or time.perf_counter() - begin < budget:
        for name, work in works.items():
            times[name].append(seconds_of(work, device, passes[name]))
    best = {name: min(of_work) for name, of_work in times.items()}
    growth = {}
    for name, work in works.items():
        peak = Peak(device)
        seconds_of(work, device)
        memory, kind = peak.read(), 'allocated' if device.type == 'cuda' else 'rss'
        growth[name] = round(memory[f'{kind}_peak'] - memory[f'{kind}_before'], 1)
    ratios = {a: {b: best[b] / best[a] for b in works if b not in ours} for a in ours}
    return {
        'images_per_second': {name: works[name].images / x for name, x in best.items()},
        'median_images_per_second': {name: works[name].images / statistics.median(x) for name, x in times.items()},
        'seconds': best,
        'growth_mb': growth,
        'turns': len(times[ours[0]]),
        'times_as_fast_as': ratios,
        'targets': {},
        **{f'{name}_over_faster': min(others.values()) for name, others in ratios.items() if others},
    }


def rivals_too(ours: Sequence[str], rivals: Sequence[str], of: Callable[[str], T]) -> tuple[dict[str, T], dict]:
    """What is made by the names of ours and of rivals, and by name why a rival does not run here."""
    made, left_out = {}, {}
    for name in (*ours, *rivals):
        try:
            made[name] = of(name)
        except Exception as error:
            if name in ours:
                raise
            # of whichever kind: ours are measured without it
            left_out[name] = str(error) if isinstance(error, Skip) else f'{type(error).__name__}: {error}'
    return made, left_out


def side_by_side(
    settings: Settings,
    rivals: str,
    train: bool,
    alone: bool,
    size: int = 224,
    batch: int = BATCH,
    budget: float = 5.0,
    min_turns: int = 5,
) -> dict:
    """Ours and the rivals of a package, eagerly.

    Args:
        settings: Of the run.
        rivals: Of `RIVALS`; one that does not run here is left out, with the reason.
        train: Forward and backward instead of inference.
        alone: Whether ours are measured where no rival runs.
        size, batch: Of the images.
        budget, min_turns: As for `in_turns`.
    """
    need_gpu(settings)
    device = settings.device

    def of(name: str) -> Work:
        need_models(name)
        work = build(device, name, size, batch, train, compiled=False)
        seconds_of(work, device)
        return work

    if not alone:
        need_models(*RIVALS[rivals])
    works, left_out = rivals_too(OURS, RIVALS[rivals], of)
    return in_turns(works, device, OURS, budget, min_turns) | {'left_out': left_out}


def cpu_time(settings: Settings, autocast: bool, size: int = 224, turns: int = 40) -> dict:
    """Milliseconds of this thread in a forward pass of one image: Python, dispatch and launches, beside the GPU."""
    need_gpu(settings)
    device = settings.device

    def of(name: str) -> Work:
        need_models(name)
        work = build(device, name, size, batch=1, train=False, compiled=False, autocast=autocast)
        for _ in range(3):  # compiles, and fills what is kept by shapes
            seconds_of(work, device)
        return work

    works, left_out = rivals_too(OURS, [CPU_RIVAL], of)
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            if device.type == 'cuda':
                torch.cuda.synchronize(device)
            begin = time.thread_time()
            for _ in range(REPEATS):
                work.run()
            times[name].append(1e3 * (time.thread_time() - begin) / REPEATS)
    least, median = ({name: of(x) for name, x in times.items()} for of in (min, statistics.median))
    found = {'median_ms': median, 'least_ms': least, 'turns': turns, 'left_out': left_out}
    if CPU_RIVAL in works:
        found |= {f'{name}_over_swin': median[name] / median[CPU_RIVAL] for name in OURS}
    return found


def operators(settings: Settings, case: str, size: int = 224, batch: int = BATCH) -> dict:
    need_gpu(settings)
    need_models('msvmamba-t')
    run = breakdown.build(case, settings.device, size, batch, autocast=True)
    return {'size': size, 'batch': batch} | breakdown.measure(run, settings.device)


def _compiled_step(name: str, train: bool) -> Step:
    run = partial(backbone, name=name, size=224, batch=BATCH, train=train, compiled=True)
    # those of others may fail in their own ways
    return Step(f'time/backbone/{"train" if train else "infer"}/compiled/224/{name}', run, required=name in OURS)


def _growth_step(name: str, train: bool, side: int) -> Step:
    # a point of a curve may be rougher than a figure that is compared
    options = dict(size=side, batch=GROWTH_BATCH, train=train, compiled=False, budget=0.3, min_turns=3)
    run = partial(backbone, name=name, **options)
    return Step(f'time/growth/{name}/{"train" if train else "forward"}/{side}', run, required=name in OURS)


def _growth_steps(names: Sequence[str]) -> list[Step]:
    return [_growth_step(name, train, side) for train in (False, True) for side in SIDES for name in names]


def _turns_steps(rivals: str, alone: bool) -> list[Step]:
    # four models, of which ours may have to be compiled first
    return [
        Step(
            f'time/backbones/{"train" if train else "infer"}/224/{rivals}',
            partial(side_by_side, rivals=rivals, train=train, alone=alone),
            limit=120.0,
            required=alone,
        )
        for train in (False, True)
    ]


TURNS = _turns_steps('timm', alone=True)
CPU_TIME = [
    Step(f'time/cpu/infer/batch1/{"bfloat16" if autocast else "float32"}', partial(cpu_time, autocast=autocast))
    for autocast in (True, False)
]
BREAKDOWN = [Step(f'time/breakdown/{case}', partial(operators, case=case)) for case in BROKEN_DOWN]
GROWTH = _growth_steps((*OURS, 'timm-swin-t'))
#: The same rivals by others, and what takes long, as compilation does.
LATE = [
    *_turns_steps('mmpretrain', alone=False),
    *(_compiled_step(name, train) for train in (False, True) for name in MODELS),
    *_growth_steps(('timm-convnext-t', *RIVALS['mmpretrain'])),
]
TIMINGS = [*TURNS, *CPU_TIME, *BREAKDOWN, *GROWTH, *LATE]
