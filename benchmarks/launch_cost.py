"""What a forward pass of batch 1 costs the CPU alone, eagerly: ours against Swin-T, in turns.

    python benchmarks/launch_cost.py --out benchmarks/results/launch_cost_cpu.json

No GPU is needed: ours run the Triton backend on a stand-in for the driver (`driver_stand_in`), so that what is counted
is Python, torch's dispatch and the binding of arguments. All models are as deep as published and so narrow that their
arithmetic counts little; what it takes counts for all alike. Times are of the thread, so that other processes count
little too; ratios of one run are comparable, single times are not.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from arguments import check_out_and_threads
from driver_stand_in import stand_in
from machine import describe
from torch import nn

from mmmsvmamba import MSVMamba, Vim, VMamba

#: Ours: class, arch, and how it is made narrow.
OURS = {
    'msvmamba-t': (MSVMamba, dict(base='tiny', dims=16)),
    'msvmamba-t-v3': (MSVMamba, dict(base='tiny-v3', dims=16)),
    'vmamba-t-s1l8': (VMamba, dict(base='tiny-s1l8', dims=16)),
    'vim-t': (Vim, dict(base='tiny', embed_dims=16)),
}
RIVALS = {'swin-t (timm)': 'timm', 'swin-t (mmpretrain)': 'mmpretrain'}
SIDE = 64
TURNS = 30


def make(name: str) -> nn.Module:
    """A narrow backbone, for inference; Swin-T of timm or of mmpretrain."""
    if name in OURS:
        kind, arch = OURS[name]
        return kind(arch, **kind.classifier_options)
    if name == 'swin-t (timm)':
        import timm

        options = dict(embed_dim=12, num_classes=0, strict_img_size=False)
        return timm.create_model('swin_tiny_patch4_window7_224', **options)
    from mmpretrain.models.backbones import SwinTransformer

    arch = dict(embed_dims=12, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24])
    return SwinTransformer(arch, pad_small_map=True)


def milliseconds(run: Callable[[], object]) -> float:
    begin = time.thread_time()
    run()
    return 1e3 * (time.thread_time() - begin)


def measure(names: Sequence[str], grad: bool = False, turns: int = TURNS) -> dict:
    """Times of a pass in milliseconds, the least and the median, and how many kernels of ours it launches.

    Args:
        names: Of models.
        grad: Forward and backward instead of inference.
        turns: Passes of each, one after the other, turn by turn.
    """
    models = {name: make(name) for name in names}
    images = torch.randn(1, 3, SIDE, SIDE)

    def run(model: nn.Module) -> None:
        # the libraries' test loops run under no_grad
        with torch.set_grad_enabled(grad):
            y = model(images)
            if grad:
                y = y[-1] if isinstance(y, (tuple, list)) else y
                y.sum().backward()

    times: dict[str, list[float]] = {name: [] for name in names}
    launches: dict[str, int] = {}
    with stand_in() as noted:
        for name, model in models.items():
            model.train(grad)
            for _ in range(2):
                run(model)
            before = noted.launches
            run(model)
            launches[name] = noted.launches - before
        for _ in range(turns):
            for name, model in models.items():
                times[name].append(milliseconds(lambda model=model: run(model)))
    return {
        name: {'least_ms': min(found), 'median_ms': statistics.median(found), 'launches': launches[name]}
        for name, found in times.items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    installed = [name for name, package in RIVALS.items() if importlib.util.find_spec(package) is not None]
    parser.add_argument('--models', nargs='+', choices=[*OURS, *RIVALS], default=[*OURS, *installed], metavar='MODEL')
    parser.add_argument('--turns', type=int, default=TURNS)
    parser.add_argument('--out', type=Path, metavar='FILE.json')
    args = parser.parse_args(argv)
    args.threads = 1
    check_out_and_threads(parser, args)
    torch.set_num_threads(1)
    results = {'machine': describe(torch.device('cpu'))}
    for mode in ('inference', 'training'):
        found = measure(args.models, grad=mode == 'training', turns=args.turns)
        rivals = [row for name, row in found.items() if name in RIVALS]
        for name, row in found.items():
            if name in OURS and rivals:
                row['over_swin'] = row['least_ms'] / min(rival['least_ms'] for rival in rivals)
            ratio = f', {row["over_swin"]:.2f} × Swin-T' if 'over_swin' in row else ''
            print(f'{mode:10} {name:20} {row["least_ms"]:7.2f} ms, {row["launches"]:4} launches{ratio}', flush=True)
        results[mode] = found
    if args.out is not None:
        args.out.write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
    main()
