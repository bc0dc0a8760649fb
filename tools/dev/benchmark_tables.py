"""Writes the tables of docs/families.md from benchmarks/results/.

    python tools/dev/benchmark_tables.py

The page's own words are between the tables. How its results are taken anew:

    python benchmarks/run.py --cases 'families/*' --out benchmarks/results/families_cpu.json
    python benchmarks/run.py --cases 'scan-patterns/*' --out benchmarks/results/scan_patterns_cpu.json
    python benchmarks/run.py --cases 'vim-deit/*' --out benchmarks/results/vim_deit_time_cpu.json
    python benchmarks/tasks.py --cases 'growth/*-tiny*' --out benchmarks/results/vim_deit_cpu.json
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from typing import Any

from mmengine.fileio import load
from page_tables import markdown, update

from mmmsvmamba.engine.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / 'benchmarks' / 'results'
PAGE = REPOSITORY / 'docs' / 'families.md'

Results = Mapping[str, Any]
#: Name in the results -> name in the tables.
MODELS = {
    'vim-tiny': 'Vim-Ti',
    'deit-tiny': 'DeiT-Ti, fused attention',
    'deit-tiny-scores': 'DeiT-Ti, matrix of scores',
}
#: What the Vim paper (arXiv:2401.09417) claims against DeiT, for batch inference on a GPU: side of the image, times as
#: fast, share of the GPU's memory saved.
PAPER = (1248, 2.8, 0.868)


def tables() -> dict[str, str]:
    """The tables of the page: name -> markdown."""
    vim_deit = load(RESULTS / 'vim_deit_time_cpu.json'), load(RESULTS / 'vim_deit_cpu.json')
    return {
        'families': families(load(RESULTS / 'families_cpu.json')),
        'Vim and DeiT': vim_and_deit(*vim_deit),
        'Vim against DeiT': vim_against_deit(*vim_deit),
        'growth': growth(*vim_deit),
    }


def scan_pattern_tables() -> dict[str, str]:
    """The table of scan patterns, for the page of the ablations: name -> markdown."""
    return {'scan pattern speed': scan_patterns(load(RESULTS / 'scan_patterns_cpu.json'))}


def families(results: Results) -> str:
    """Every architecture: parameters, operations, speed relative to the yardstick's."""
    (found,) = results['cases'].values()
    rows = []
    for name, about in found['about'].items():
        others = found['times_as_fast_as'].get(name)
        family, arch = name.split(' ')
        speed = 1.0 if others is None else next(iter(others.values()))
        rows.append([family, f'`{arch}`', f'{about["parameters"] / 1e6:.1f}', f'{about["gflops"]:.2f}', f'{speed:.2g}'])
    columns = ['Family', 'Architecture', 'Params (M)', 'GFLOPs at 224²', 'Speed on a CPU']
    return markdown(columns, ['---', '---', '---:', '---:', '---:'], rows)


def vim_and_deit(times: Results, memory: Results) -> str:
    """What each of them takes, by size of image."""
    rows = []
    for side in _sides(times):
        for name, title in MODELS.items():
            speed, megabytes = _speeds(times, side)[name], _megabytes(memory, name, side)
            gflops = times['cases'][f'vim-deit/forward/{side}']['about'][name]['gflops']
            rows.append([f'{side}²', title, f'{gflops:.1f}', f'{1 / speed:.2f}', f'{megabytes:,.0f}'])
    columns = ['Image', 'Model', 'GFLOPs', 'Seconds per image', 'MB per image']
    return markdown(columns, ['---', '---', '---:', '---:', '---:'], rows)


def vim_against_deit(times: Results, memory: Results) -> str:
    """Vim's time and memory relative to DeiT's, and the paper's claim."""

    def row(side: int, against: str, speed: float, share: float) -> list[str]:
        return [f'{side}²', against, f'{speed:.2f}', f'{100 * share:.0f} %']

    rows = []
    for side in _sides(times):
        speeds, vim = _speeds(times, side), _megabytes(memory, 'vim-tiny', side)
        for name, title in MODELS.items():
            if name != 'vim-tiny':
                rows.append(row(side, title, speeds['vim-tiny'] / speeds[name], vim / _megabytes(memory, name, side)))
    side, speed, saved = PAPER
    rows.append(row(side, 'DeiT-Ti on a GPU, the paper', speed, 1 - saved))
    columns = ['Image', 'Against', 'Vim is so many times as fast', 'Vim takes of its memory']
    return markdown(columns, ['---', '---', '---:', '---:'], rows)


def growth(times: Results, memory: Results) -> str:
    """Exponents of the number of pixels, between the two largest sizes."""
    small, large = _sides(times)[-2:]
    rows = []
    for name, title in MODELS.items():
        seconds = [1 / _speeds(times, side)[name] for side in (small, large)]
        megabytes = [_megabytes(memory, name, side) for side in (small, large)]
        rows.append([title, *(f'{_exponent(cost, (small, large)):.2f}' for cost in (seconds, megabytes))])
    return markdown([f'From {small}² to {large}²', 'Time', 'Memory'], ['---', '---:', '---:'], rows)


def _exponent(costs: Sequence[float], sides: Sequence[int]) -> float:
    return log(costs[1] / costs[0]) / (2 * log(sides[1] / sides[0]))


def scan_patterns(results: Results) -> str:
    """Images per second of every pattern over those of cross-scan, with and without the depthwise convolution."""
    forward, train = (
        results['cases'][f'scan-patterns/{mode}/224']['images_per_second'] for mode in ('forward', 'train')
    )
    rows = []
    for name in forward:
        pattern, _, without = name.partition(', ')
        speeds = (found[name] / found['cross'] for found in (forward, train))
        rows.append([f'{pattern}-scan', 'no' if without else 'yes', *(f'{speed:.2f}' for speed in speeds)])
    columns = ['Pattern', 'Depthwise conv', 'Inference', 'Training']
    return markdown(columns, ['---', '---', '---:', '---:'], rows)


def _sides(times: Results) -> list[int]:
    return sorted(int(name.rpartition('/')[2]) for name in times['cases'])


def _speeds(times: Results, side: int) -> dict[str, float]:
    return times['cases'][f'vim-deit/forward/{side}']['images_per_second']


def _megabytes(memory: Results, name: str, side: int) -> float:
    """What an image takes."""
    found = memory['cases'].get(f'growth/{name}/forward/{side}', {'error': 'not measured'})
    if 'error' in found:
        raise UserError(f'the results have no memory of {name} at {side}: {found["error"]}')
    return found['growth_mb'] / found['images']


if __name__ == '__main__':
    sys.exit(update(PAGE, tables))
