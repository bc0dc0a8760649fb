"""Prints parameters and operations of a forward pass: of the architectures by name, or of the model in a config.

    python tools/get_flops.py                                   all architectures
    python tools/get_flops.py --arch nano tiny-v3 Vim/tiny --shape 512 512 --by-operator
    python tools/get_flops.py configs/mask_rcnn_msvmamba_n_1x.py

An architecture is counted as a backbone with all its outputs; "with head" are its parameters as an ImageNet classifier.
Operations are counted by the rule of mmmsvmamba.analysis.flops, where a multiply-add is one. Of a detector they are
counted for the backbone alone: what its heads do depends on the boxes they find. Classifiers and segmentors are
counted as a whole too, with the parts that run in a test, so without auxiliary heads.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
from mmengine.registry import MODELS, DefaultScope
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from mmmsvmamba import backbones
from mmmsvmamba.analysis import FlopCount, count_flops
from mmmsvmamba.engine.errors import UserError
from mmmsvmamba.engine.options import read_config
from mmmsvmamba.engine.scopes import scope_of

Shape = tuple[int, int]

#: Height and width at which figures are published, by library.
SHAPES: dict[str, Shape] = {'mmpretrain': (224, 224), 'mmdet': (1280, 800), 'mmseg': (512, 2048)}
CLASSES = 1000


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse_args(argv)
    try:
        tables = _config_tables(args) if args.config else _arch_tables(args)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    # markdown is for files: there a line must not depend on the width of a terminal
    console = Console(width=200) if args.markdown else Console()
    for table in tables:
        table.box = box.MARKDOWN if args.markdown else box.ROUNDED
        console.print(table)
    return 0


def _parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument('config', nargs='?', help='config file of a detector, segmentor or classifier')
    source.add_argument(
        '--arch', nargs='+', metavar='NAME', help='architectures by name, such as tiny or Vim/tiny; all by default'
    )
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('H', 'W'), help='size of the image; by default the published ones'
    )
    parser.add_argument('--by-operator', action='store_true', help='also print the operations of each kind of operator')
    parser.add_argument('--markdown', action='store_true', help='print the tables as markdown')
    return parser.parse_args(argv)


def _arch_tables(args: argparse.Namespace) -> list[Table]:
    shapes = [tuple(args.shape)] if args.shape else list(SHAPES.values())
    summary = _table('Backbone', 'Params (M)', 'with head (M)', *(f'GFLOPs {_by(shape)}' for shape in shapes))
    tables = [summary]
    for family, arch in _find(args.arch):
        with torch.device('meta'):
            backbone = family(arch)
            classifier = nn.ModuleList(
                [family(arch, **family.classifier_options), nn.Linear(backbone.feature_info.channels()[-1], CLASSES)]
            )
        counts = [_count(backbone, shape) for shape in shapes]
        name = f'{family.__name__} {arch}'
        parameters = (counts[0].parameters, sum(p.numel() for p in classifier.parameters()))
        summary.add_row(name, *map(_millions, parameters), *(_giga(count.total) for count in counts))
        if args.by_operator:
            tables.append(_operators(name, shapes, counts))
    return tables


def _config_tables(args: argparse.Namespace) -> list[Table]:
    cfg = read_config(args.config, None)
    scope = scope_of(cfg)
    with DefaultScope.overwrite_default_scope(scope.name):
        model = MODELS.build(cfg.model)
    if not isinstance(getattr(model, 'backbone', None), nn.Module):
        raise UserError(f'{args.config} describes a {type(model).__name__}, which has no backbone to count')
    shape = tuple(args.shape) if args.shape else SHAPES[scope.name]
    parts = {f'backbone {type(model.backbone).__name__}': _count(model.backbone, shape)}
    if scope.name != 'mmdet':
        parts[type(model).__name__] = _count(model, shape)

    summary = _table('Model', 'Params (M)', f'GFLOPs {_by(shape)}')
    for name, count in parts.items():
        summary.add_row(name, _millions(count.parameters), _giga(count.total))
    if scope.name == 'mmdet':
        summary.add_row(type(model).__name__, _millions(sum(p.numel() for p in model.parameters())), 'by image')
    return [summary, *(_operators(name, [shape], [count]) for name, count in parts.items() if args.by_operator)]


def _find(names: Sequence[str] | None) -> list[tuple[type[nn.Module], str]]:
    """The classes and architectures of the given names, or all."""
    families = [getattr(backbones, name) for name in backbones.__all__]
    known = [(family, arch) for family in families for arch in family.arch_settings]
    spelled = {pair: (pair[1], f'{pair[0].__name__}/{pair[1]}') for pair in known}
    unknown = [name for name in names or () if not any(name in both for both in spelled.values())]
    if unknown:
        archs = '; '.join(f'{family.__name__}: {", ".join(family.arch_settings)}' for family in families)
        raise UserError(f'unknown architecture {", ".join(unknown)}; known are {archs}')
    return [pair for pair in known if names is None or set(spelled[pair]) & set(names)]


def _count(model: nn.Module, shape: Shape) -> FlopCount:
    return count_flops(model, (1, 3, *shape))


def _operators(name: str, shapes: Sequence[Shape], counts: Sequence[FlopCount]) -> Table:
    """A table of the operations of each kind of operator, the largest first."""
    table = _table(name, *(f'GFLOPs {_by(shape)}' for shape in shapes))
    kinds = sorted(counts[0].by_operator, key=counts[0].by_operator.get, reverse=True)
    for kind in kinds:
        table.add_row(kind, *(_giga(count.by_operator[kind]) for count in counts))
    table.add_row('total', *(_giga(count.total) for count in counts))
    return table


def _table(first: str, *numbers: str) -> Table:
    table = Table()
    table.add_column(first, no_wrap=True)
    for header in numbers:
        table.add_column(header, justify='right')
    return table


def _by(shape: Shape) -> str:
    return f'{shape[0]}×{shape[1]}'


def _millions(number: int) -> str:
    return f'{number / 1e6:.2f}'


def _giga(number: int) -> str:
    return f'{number / 1e9:.3f}'


if __name__ == '__main__':
    sys.exit(main())
