"""Puts MSVMamba or VMamba into a config of any OpenMMLab library, and says what it changed and why.

    python tools/swap_backbone.py mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py --arch tiny
    python tools/swap_backbone.py my_config.py --arch tiny-v3 --recipe -o my_config_msvmamba.py

The config that is written stands alone: it builds on no other file and runs with the tools of its library
(`mim train mmdet FILE`) and with tools/train.py. Published weights are named in it; for nano, micro and tiny the file
has to be fetched by hand first, which the output says.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.text import Text

from mmmsvmamba.engine.errors import UserError
from mmmsvmamba.engine.options import read_config
from mmmsvmamba.swap import BACKBONES, Change, backbone_class, swap_with_changes

ARCHS = [arch for kind in BACKBONES for arch in kind.arch_settings]
STYLES = {'#': 'dim', '-': 'red', '+': 'green'}


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        family = backbone_class(args.arch).__name__.lower()
        out = Path(args.out or f'{Path(args.config.rpartition("::")[2]).stem}_{family}_{args.arch}.py')
        _check_writable(out, args.force)
        pretrained = None if args.from_scratch else args.pretrained or 'published'
        if args.pretrained and '://' not in args.pretrained:
            pretrained = str(_existing(args.pretrained))
        cfg = read_config(args.config, None)
        swapped, changes = swap_with_changes(
            cfg, args.arch, pretrained=pretrained, drop_path_rate=args.drop_path_rate, recipe=args.recipe
        )
        _write(swapped, out)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    _show(changes)
    print(f'\n{len(changes)} changes; the new config is {out}')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a config file, or one of a library, such as mmdet::dino/NAME.py')
    parser.add_argument('--arch', required=True, help=f'one of {", ".join(ARCHS)}')
    parser.add_argument(
        '-o', '--out', metavar='FILE.py', help='where the new config goes (CONFIG_FAMILY_ARCH.py, here)'
    )
    parser.add_argument('--force', action='store_true', help='replace a file that is there')
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument('--pretrained', metavar='PATH', help='weights to start from, a file or an address')
    weights.add_argument('--from-scratch', action='store_true', help='start from random weights')
    parser.add_argument('--drop-path-rate', type=float, metavar='RATE', help="default: the published detectors'")
    parser.add_argument('--recipe', action='store_true', help="take the published recipe's optimizer as well")
    return parser


def _existing(path: str) -> Path:
    """The absolute path of a file, so that the config runs from any folder.

    Raises:
        UserError: if there is none.
    """
    if not Path(path).is_file():
        raise UserError(f'--pretrained {path}: there is no such file.')
    return Path(path).resolve()


def _check_writable(out: Path, force: bool) -> None:
    if out.suffix != '.py':
        raise UserError(f'-o {out}: configs are Python files, so the name must end in .py.')
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f'-o {out}: ' + ('that is a folder.' if out.is_dir() else f'there is no folder {out.parent}.'))
    if out.exists() and not force:
        raise UserError(f'{out} is there already; name another file with -o, or replace it with --force.')


def _write(cfg: Config, out: Path) -> None:
    """Writes a config, whole or not at all, and reads it back.

    Raises:
        UserError: if the file cannot be written, or what it says is not what was meant.
    """
    part = out.with_name(f'.{out.stem}.part.py')
    try:
        cfg.dump(part)
        same = Config.fromfile(part).to_dict() == cfg.to_dict()
        if same:
            part.replace(out)
    except OSError as error:
        raise UserError(f'{out} cannot be written: {error.strerror or error}') from error
    finally:
        part.unlink(missing_ok=True)
    if not same:
        raise UserError(
            'The config holds values that do not survive being written to a file, such as functions; write '
            'custom_imports, type + arch and in_channels into it by hand.'
        )


def _show(changes: Sequence[Change]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for change in changes:
        for line in str(change).splitlines():
            console.print(Text(line, style=STYLES.get(line[0], '')))


if __name__ == '__main__':
    sys.exit(main())
