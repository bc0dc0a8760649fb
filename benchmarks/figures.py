"""What can be drawn of the results of the benchmarks: reads a result file of any of the programs, draws nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lines:
    """Curves over the side of square images, by name: points (side, value), both positive."""

    label: str
    series: dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Bars:
    """Values by name, with what each has to reach, if anything.

    Attributes:
        ratios: Whether they are of two things, and 1 says that neither is better.
    """

    label: str
    rows: dict[str, float]
    targets: dict[str, float] = field(default_factory=dict)
    ratios: bool = False


@dataclass(frozen=True)
class Stacks:
    """Shares of parts in a whole, by whole and part."""

    label: str
    rows: dict[str, dict[str, float]]


Panel = Lines | Bars | Stacks


@dataclass(frozen=True)
class Figure:
    """Panels side by side; the name is that of its file."""

    name: str
    title: str
    panels: list[Panel]


def figures(results: Mapping) -> list[Figure]:
    """All figures of the results of `run.py`, `tasks.py`, `breakdown.py` or `gpu_check.py`; none of other files."""
    cases = dict(_cases(results))
    parts = {name: case for name, case in cases.items() if 'operators' in case}
    return [*_growth(cases), *_ratios(cases), *_shares_of_copy(cases), *_backbones(cases), *_breakdown(parts)]


def _cases(results: Mapping) -> Iterator[tuple[str, Mapping]]:
    """Figures by name of what was measured without an error, whichever program did it."""
    for name, found in _table(results, 'cases').items():
        if 'error' not in found:
            yield name, found
    for name, found in _table(results, 'breakdown').items():
        yield f'breakdown/{name}', found
    for name, found in _table(results, 'timings').items():
        if found.get('result') == 'passed':
            yield name.removeprefix('time/'), found['figures']


def _table(results: Mapping, key: str) -> dict[str, Mapping]:
    table = results.get(key)
    return {k: v for k, v in table.items() if isinstance(v, Mapping)} if isinstance(table, Mapping) else {}


def _growth(cases: Mapping[str, Mapping]) -> Iterator[Figure]:
    """Of `growth/<what>/<mode>/<side>`, a figure for each mode: time and memory of an image."""
    modes: dict[str, tuple[dict, dict]] = {}
    for name, case in cases.items():
        if not name.startswith('growth/'):
            continue
        what, mode, side = name.removeprefix('growth/').rsplit('/', 2)
        times, sizes = modes.setdefault(mode, ({}, {}))
        for panel, cost in ((times, 'seconds'), (sizes, 'growth_mb')):
            if case[cost] > 0:  # what a small image takes may hide behind what is there
                panel.setdefault(what, []).append((int(side), case[cost] / case['images']))
    for mode, panels in modes.items():
        labels = ('seconds for an image', 'MB for an image')
        lines = [
            Lines(label, {what: sorted(points) for what, points in panel.items()})
            for label, panel in zip(labels, panels, strict=True)
        ]
        if any(len(points) > 1 for panel in panels for points in panel.values()):
            yield Figure(f'growth-{mode}', f'Growth with the side of the image: {mode}', lines)


def _ratios(cases: Mapping[str, Mapping]) -> Iterator[Figure]:
    """Of ours against others, a figure for each first part of the names of cases."""
    kinds: dict[str, tuple[dict, dict]] = {}
    for name, case in cases.items():
        kind, _, rest = name.partition('/')
        rows, targets = kinds.setdefault(kind, ({}, {}))
        for ours, others in case.get('times_as_fast_as', {}).items():
            for other, ratio in others.items():
                rows[f'{rest}: {ours} / {other}'] = ratio
                if other in case['targets']:
                    targets[f'{rest}: {ours} / {other}'] = case['targets'][other]
        if 'times_as_fast_as_torch' in case:
            rows[rest] = case['times_as_fast_as_torch']
    for kind, (rows, targets) in kinds.items():
        if rows:
            label = 'times as fast as ' + ("torch's operators" if kind == 'block' else 'the other')
            yield Figure(f'ratios-{kind}', f'Ours against others: {kind}', [Bars(label, rows, targets, ratios=True)])


def _shares_of_copy(cases: Mapping[str, Mapping]) -> Iterator[Figure]:
    rows = {name: case['over_copy'] for name, case in cases.items() if 'over_copy' in case}
    if rows:
        bars = Bars('bytes per second over those of a copy', rows)
        yield Figure('share-of-copy', 'How near to the bandwidth of a copy', [bars])


def _backbones(cases: Mapping[str, Mapping]) -> Iterator[Figure]:
    """Of the GPU's `backbone/<mode>/<size>/<name>`: images per second and peak memory."""
    found = {
        name.removeprefix('backbone/'): case
        for name, case in cases.items()
        if name.startswith('backbone/') and 'images_per_second' in case
    }
    if found:
        speed = Bars('images per second', {name: case['images_per_second'] for name, case in found.items()})
        memory = Bars('MB above the weights at the peak', {name: case['growth_mb'] for name, case in found.items()})
        yield Figure('backbones', 'Backbones', [speed, memory])


def _breakdown(cases: Mapping[str, Mapping]) -> Iterator[Figure]:
    if cases:
        rows = {
            name.removeprefix('breakdown/'): {part: row['share'] for part, row in case['operators'].items()}
            for name, case in cases.items()
        }
        yield Figure('breakdown', 'Time by operator', [Stacks('share of the time', rows)])
