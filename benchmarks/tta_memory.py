"""Peak memory of multi-scale testing of a segmentor: ours and mmseg's, against the largest scale alone.

    python benchmarks/tta_memory.py --device cpu --out benchmarks/results/tta_cpu.json

Six scales with flip, so twelve predictions, of which mmseg's `SegTTAModel` keeps every full-size map of class scores
until the last is there, and `AccumulatingSegTTAModel` one running sum. What both are compared with is the segmentor
alone, on the two pictures of the largest scale one after the other. Each runs in a fresh process. At the last size the
averaged class scores of both are compared too. A missed bound or a failure makes the exit code 1; what needs more
memory than the machine has, by the size of the score maps, is left out, which the results say.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import mmcv
import numpy as np
import torch
from arguments import check_out_and_threads
from fresh_process import Failed, in_fresh_process, measure
from machine import describe, usable_device
from memory import available
from mmengine.config import Config, DictAction
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.structures import PixelData
from registry import Work
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmmsvmamba.engine.building import build_model
from mmmsvmamba.engine.options import read_config
from mmmsvmamba.engine.scopes import scope_of
from mmmsvmamba.engine.segmentation_tta import AccumulatingSegTTAModel

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
#: What the peak of ours may be, in peaks of the largest scale alone, and how far its averaged scores may be off.
PEAK_BOUND, SCORE_BOUND = 1.3, 1e-4
MODES = ('single', 'ours', 'stock')

Size = tuple[int, int]


def segmentor(cfg: Config, device: torch.device) -> BaseModel:
    """The segmentor of a config with random weights, and logits that spread as those of a trained one do.

    Without that every class would have the same score in every pixel, and any mean would be right.
    """
    torch.manual_seed(0)
    model = revert_sync_batchnorm(build_model(cfg, scope_of(cfg))).to(device).eval()
    with torch.no_grad():
        logits = model(torch.randn(1, 3, 64, 64, device=device))
        model.decode_head.conv_seg.weight *= 3 / logits.std()
    return model


def views(size: Size, scales: Sequence[float]) -> dict[str, list]:
    """One random picture at all scales, each as it is and flipped, in the form that a loader gives to a test."""
    from mmseg.structures import SegDataSample

    labels = torch.zeros(1, *size, dtype=torch.int64)
    noise = np.random.default_rng(0).integers(256, size=(size[0] // 16, size[1] // 16, 3), dtype=np.uint8)
    picture = mmcv.imresize(noise, size[::-1])
    data = dict(inputs=[], data_samples=[])
    for scale in scales:
        scaled = mmcv.imrescale(picture, scale)
        for flip in (False, True):
            image = mmcv.imflip(scaled) if flip else scaled
            metainfo = dict(
                img_path='random',
                ori_shape=size,
                img_shape=image.shape[:2],
                flip=flip,
                flip_direction='horizontal' if flip else None,
            )
            data['inputs'].append([torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))])
            # the loader gives every view labels of its own
            sample = SegDataSample(metainfo=metainfo, gt_sem_seg=PixelData(data=labels.clone()))
            data['data_samples'].append([sample])
    return data


def build(device: torch.device, cfg: Config, size: Size, mode: str) -> Work:
    from mmseg.models import SegTTAModel

    model = segmentor(cfg, device)
    scales = SCALES[-1:] if mode == 'single' else SCALES

    @torch.no_grad()
    def run():
        data = views(size, scales)
        if mode == 'single':
            for inputs, data_samples in zip(*data.values(), strict=True):
                model.test_step(dict(inputs=inputs, data_samples=data_samples))
                del data_samples[:]  # the prediction is in them
            return
        (AccumulatingSegTTAModel if mode == 'ours' else SegTTAModel)(model).test_step(data)

    return Work(run, images=1, pixels=size[0] * size[1])


class LastDecision(TorchDispatchMode):
    """Keeps what the last `argmax` chose from.

    Both models return labels alone; the averaged scores are what they choose from at their very end.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.argmax.default:
            self.scores: Tensor = args[0]
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def compare_scores(device: torch.device, cfg: Config, size: Size) -> dict[str, float]:
    """Largest difference of the averaged class scores of ours and mmseg's, and how decided they are.

    Raises:
        ValueError: The two give score maps of different shapes.
    """
    from mmseg.models import SegTTAModel

    model = segmentor(cfg, device)
    scores = []
    for wrapper in (AccumulatingSegTTAModel, SegTTAModel):
        with LastDecision() as decision:
            wrapper(model).test_step(views(size, SCALES))
        scores.append(decision.scores)
    ours, stock = scores
    if ours.shape != stock.shape:
        raise ValueError(f'ours averages scores of shape {tuple(ours.shape)}, mmseg of shape {tuple(stock.shape)}')
    best = stock.amax(dim=0)
    difference = (ours - stock).abs().max().item()
    return {'largest_difference': difference, 'mean_of_best': best.mean().item(), 'best': best.max().item()}


def needed_memory(classes: int, size: Size, mode: str, alone: float) -> int:
    """Bytes that a mode needs at least.

    The prediction at the largest scale holds logits of its own size twice where it is flipped, and one full-size map;
    ours a sum beside these, mmseg's the maps of all predictions before.

    Args:
        classes: Of the segmentor.
        size: Of the picture.
        mode: One of `MODES`.
        alone: Bytes that the prediction at the largest scale was seen to grow by; 0 before it is measured.
    """
    full = 4 * classes * size[0] * size[1]
    kept = {'single': 0, 'ours': 1, 'stock': 2 * len(SCALES) - 1}[mode]
    return round(max(full * (2 * SCALES[-1] ** 2 + 1), alone) + full * kept)


def measure_size(cfg: Config, size: Size, device: torch.device, threads: int | None, timeout: float) -> dict:
    """Time and memory of all modes at one size; a mode that failed or was left out has only the reason."""
    results = {}
    for mode in MODES:
        alone = results.get('single', {}).get('growth_mb', 0) * 1e6
        needed, free = needed_memory(cfg.model.decode_head.num_classes, size, mode, alone), available(device)
        if needed > free:
            reason = f'it takes at least {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free'
            results[mode] = {'skipped' if mode == 'stock' else 'error': reason}
            continue
        work = partial(build, cfg=cfg, size=size, mode=mode)
        try:
            results[mode] = in_fresh_process(measure, work, device, threads, 0.0, 1, timeout=timeout)
        except Failed as error:
            results[mode] = {'error': str(error)}
        print(f'{size[0]}x{size[1]}, {mode}: {results[mode]}', flush=True)
    peak = 'allocated_peak' if device.type == 'cuda' else 'rss_peak'
    if 'error' not in results['single']:
        for mode in MODES[1:]:
            if 'memory_mb' in results[mode]:
                results[mode]['peak_over_single'] = (
                    results[mode]['memory_mb'][peak] / results['single']['memory_mb'][peak]
                )
    return results


def missed_bounds(sizes: dict[str, dict], scores: dict) -> list[str]:
    """What failed or is beyond its bound. The bounds are ours: what mmseg's model takes is told, not judged."""
    missed = []
    for size, results in sizes.items():
        missed += [f'{size}, {mode}: {result["error"]}' for mode, result in results.items() if 'error' in result]
        ratio = results['ours'].get('peak_over_single', 0)
        if not ratio <= PEAK_BOUND:
            missed.append(
                f'{size}: ours peaks at {ratio:.2f} times the largest scale alone; the bound is {PEAK_BOUND:g}'
            )
    if 'error' in scores:
        missed.append(f'scores: {scores["error"]}')
    elif not scores['largest_difference'] <= SCORE_BOUND:
        missed.append(f'scores differ by {scores["largest_difference"]:.2g}; the bound is {SCORE_BOUND:g}')
    return missed


def parse_size(text: str) -> Size:
    height, _, width = text.partition('x')
    if not (height.isdecimal() and width.isdecimal() and int(height) >= 32 and int(width) >= 32):
        raise argparse.ArgumentTypeError(f'{text!r} is no size; give HEIGHTxWIDTH, at least 32x32, such as 1024x2048')
    return int(height), int(width)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='configs/upernet_msvmamba_n_160k_ade20k.py', help='of a segmentor')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='change the config')
    parser.add_argument('--sizes', nargs='+', type=parse_size, default=[(1024, 2048), (512, 1024)], metavar='HxW')
    parser.add_argument('--device', default='cpu', type=usable_device)
    parser.add_argument('--threads', type=int, help='threads of torch on a CPU (default: what torch takes)')
    parser.add_argument('--timeout', type=float, default=1200.0, help='seconds that a mode may take (default: 1200)')
    parser.add_argument('--note', help='goes into the results: what else the machine was doing, for example')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='where the results go')
    args = parser.parse_args(argv)
    check_out_and_threads(parser, args)
    cfg = read_config(args.config, args.cfg_options)
    if cfg.get('default_scope') != 'mmseg':
        parser.error(f'{args.config} is for {cfg.get("default_scope")}; give the config of a segmentor of mmseg')

    machine = describe(args.device)
    machine['threads'] = args.threads or torch.get_num_threads()
    results = {'machine': machine, 'note': args.note, 'config': args.config, 'cfg_options': args.cfg_options or {}}
    results['scales'] = SCALES
    results['sizes'] = {
        f'{size[0]}x{size[1]}': measure_size(cfg, size, args.device, args.threads, args.timeout) for size in args.sizes
    }
    try:
        scores = in_fresh_process(compare_scores, args.device, cfg, args.sizes[-1], timeout=args.timeout)
    except Failed as error:
        scores = {'error': str(error)}
    print(f'scores: {scores}')
    results['scores'] = scores
    results['missed'] = missed_bounds(results['sizes'], scores)
    if args.out is not None:
        args.out.write_text(json.dumps(results, indent=2) + '\n')
    if results['missed']:
        sys.exit('MISSED: ' + '\n        '.join(results['missed']))


if __name__ == '__main__':
    main()
