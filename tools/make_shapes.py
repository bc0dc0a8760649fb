"""Draws the embedded data set: textured shapes in COCO, ADE20K and class-folder layout.

The same arguments give the same bytes. A data set that is there already is reused.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rich.progress import track as rich_track

from mmmsvmamba.datasets.shapes import MAX_SIZE, MIN_SIZE
from mmmsvmamba.datasets.shapes_export import LAYOUTS, ShapesSpec, export_shapes
from mmmsvmamba.datasets.shapes_figures import describe


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    default = ShapesSpec()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('data/shapes'), help='folder to make')
    parser.add_argument('--train', type=_at_least(1), default=default.train, help='training scenes')
    parser.add_argument('--val', type=_at_least(1), default=default.val, help='unseen scenes')
    parser.add_argument(
        '--size',
        type=_at_least(MIN_SIZE, MAX_SIZE),
        default=default.size,
        help='side of a scene in pixels',
    )
    parser.add_argument('--seed', type=_at_least(0), default=default.seed)
    parser.add_argument('--layouts', nargs='+', choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument('--force', action='store_true', help='draw anew, replacing a data set of this kind at --out')
    return parser.parse_args(argv)


def _at_least(low: int, high: int | None = None) -> Callable[[str], int]:
    """An argument type: a whole number from ``low`` to ``high``."""

    def number(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            bounds = f'at least {low}' if high is None else f'{low} to {high}'
            raise argparse.ArgumentTypeError(f'must be {bounds}, got {value}')
        return value

    return number


def track(numbers: range, title: str) -> Iterable[int]:
    """Shows progress: a bar in a terminal, a line per quarter elsewhere."""
    return rich_track(numbers, title) if sys.stdout.isatty() else _plain_track(numbers, title)


def _plain_track(numbers: range, title: str) -> Iterator[int]:
    step = max(1, -(-len(numbers) // 4))
    for done, number in enumerate(numbers, 1):
        yield number
        if done % step == 0 or done == len(numbers):
            print(f'{title}: {done}/{len(numbers)}', flush=True)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    spec = ShapesSpec(args.train, args.val, args.size, args.seed, tuple(args.layouts))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up then as after Ctrl-C
    try:
        figures, reused = export_shapes(args.out, spec, args.force, track)
    except OSError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted: nothing was written', file=sys.stderr)
        return 130
    if reused:
        print(f'{args.out} is complete already: reused')
    else:
        print(f'{args.out} written')
        print(describe(figures))
    return 0


if __name__ == '__main__':
    sys.exit(main())
