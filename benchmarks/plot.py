"""Draws the results of the benchmarks.

    python benchmarks/plot.py benchmarks/results/cpu.json benchmarks/results/tasks_cpu.json --out pictures

Every figure is a file `<name of the results>-<figure>.png`: growth with the image, ratios against others, shares of a
copy's bandwidth, backbones, time by operator, whatever the results hold.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')  # no window

from breakdown import REST  # noqa: E402
from figures import Bars, Figure, Lines, Panel, Stacks, figures  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator  # noqa: E402

#: Parts of a stack with names of their own, the largest over all stacks; the others are drawn as one.
PARTS = 14


def draw(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG."""
    height = max(4.0, 1.5 + 0.24 * max(_rows(panel) for panel in figure.panels))
    size = (8.0 * len(figure.panels), height)
    drawn, axes = plt.subplots(1, len(figure.panels), figsize=size, squeeze=False, layout='constrained')
    for axis, panel in zip(axes[0], figure.panels, strict=True):
        {Lines: _lines, Bars: _bars, Stacks: _stacks}[type(panel)](axis, panel)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        drawn.legend(handles, labels, loc='outside lower center', ncols=min(3, len(labels)), fontsize='small')
    drawn.suptitle(figure.title)
    drawn.savefig(path, dpi=120)
    plt.close(drawn)


def _rows(panel: Panel) -> int:
    # a stack has its legend below
    return 0 if isinstance(panel, Lines) else len(panel.rows) + (8 if isinstance(panel, Stacks) else 0)


def _lines(axis: Axes, panel: Lines) -> None:
    for name, points in panel.series.items():
        axis.plot(*zip(*points, strict=True), marker='o', label=name)
    sides = sorted({side for points in panel.series.values() for side, _ in points})
    axis.set(xscale='log', yscale='log', xlabel='side of the image in pixels', ylabel=panel.label)
    axis.set_xticks(sides, [str(side) for side in sides])
    axis.xaxis.set_minor_locator(NullLocator())
    # few powers of ten lie in the range
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter('{x:g}')
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)


def _bars(axis: Axes, panel: Bars) -> None:
    names, values = list(panel.rows), list(panel.rows.values())
    if panel.ratios:
        # twice as fast is as far from 1 as half as fast
        axis.set_xscale('log')
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter('{x:g}')
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.axvline(1.0, color='black', linewidth=1)
        seen = [*values, *panel.targets.values(), 1.0]
        axis.set_xlim(min(seen) / 1.3, max(seen) * 1.3)
        axis.barh(names, [value - 1 for value in values], left=1.0, color='tab:blue')
    else:
        axis.barh(names, values, color='tab:blue')
        axis.set_xlim(0, 1.1 * max(values))
    wanted = [(target, names.index(name)) for name, target in panel.targets.items()]
    if wanted:
        axis.scatter(
            *zip(*wanted, strict=True), marker='|', s=200, linewidths=2.5, color='gold', label='target', zorder=3
        )
    axis.set_yticks(range(len(names)), [f'{name}   {_short(value)}' for name, value in panel.rows.items()])
    axis.margins(y=0.01)
    axis.invert_yaxis()
    axis.set_xlabel(panel.label)


def _short(value: float) -> str:
    return f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'


def _stacks(axis: Axes, panel: Stacks) -> None:
    largest: dict[str, float] = {}
    for parts in panel.rows.values():
        for part, share in parts.items():
            if part != REST:
                largest[part] = max(largest.get(part, 0.0), share)
    named = sorted(largest, key=largest.get, reverse=True)[:PARTS]
    shares = {part: [parts.get(part, 0.0) for parts in panel.rows.values()] for part in named}
    shares[REST] = [sum(x for part, x in parts.items() if part not in named) for parts in panel.rows.values()]
    left = [0.0] * len(panel.rows)
    colours = dict(zip(named, plt.get_cmap('tab20').colors, strict=False)) | {REST: 'gainsboro'}
    for part in shares:
        axis.barh(list(panel.rows), shares[part], left=left, label=part, color=colours[part])
        left = [a + b for a, b in zip(left, shares[part], strict=True)]
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), xlabel=panel.label)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('results', nargs='+', type=Path, metavar='FILE.json', help='what the benchmarks wrote')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER', help='where the pictures go; made if new')
    args = parser.parse_args(argv)
    found = {}
    for path in args.results:
        try:
            results = json.loads(path.read_text())
        except OSError as error:
            parser.error(f'{path} cannot be read: {error.strerror}')
        except ValueError as error:
            parser.error(f'{path} is no JSON: {error}')
        found[path] = figures(results) if isinstance(results, dict) else []
        if not found[path]:
            parser.error(
                f'{path} has nothing to draw; give results of run.py, tasks.py, breakdown.py or gpu_check.py, in which '
                'something was measured'
            )
        if [other for other in found if other != path and other.stem == path.stem]:
            parser.error(f'two results are named {path.stem}: their pictures would be too; draw them into two folders')
    args.out.mkdir(parents=True, exist_ok=True)
    for path, its_figures in found.items():
        for figure in its_figures:
            target = args.out / f'{path.stem}-{figure.name}.png'
            draw(figure, target)
            print(target)


if __name__ == '__main__':
    main()
