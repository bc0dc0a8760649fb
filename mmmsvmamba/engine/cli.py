"""The command lines of `tools/train.py` and `tools/test.py`: options in, exit code out."""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmmsvmamba.loading import CheckpointError

from . import options, preflight, testing
from .building import build_errors
from .data_guard import guard_data
from .data_root import move_data_root
from .distributed import leave_processes, prepare_cpu_processes
from .errors import UserError
from .guards import add_guards
from .input_size import set_input_size
from .progress import progress_bar
from .scopes import scope_of

Command = Callable[[Sequence[str] | None], int]


def _command(run: Callable[[Sequence[str] | None], None]) -> Command:
    """Turns a function into a command: errors that a user caused become one message and exit code 1."""

    @functools.wraps(run)
    def command(argv: Sequence[str] | None = None) -> int:
        try:
            run(argv)
        except (UserError, CheckpointError) as error:
            print(f'error: {error}', file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print('interrupted; a training goes on from its last checkpoint with --resume', file=sys.stderr)
            return 130
        leave_processes()
        return 0

    return command


@_command
def train(argv: Sequence[str] | None = None) -> None:
    """Trains a detector, a segmentor or a classifier."""
    args = _train_parser().parse_args(argv)
    cfg = _configure(args)
    scope = scope_of(cfg)
    if args.pretrained:
        options.set_pretrained(cfg, args.pretrained)
    if args.from_scratch:
        options.drop_pretrained(cfg)
    if args.amp:
        options.set_amp(cfg)
    if args.auto_scale_lr:
        options.set_auto_scale_lr(cfg)
    if args.resume:
        options.set_resume(cfg, args.resume)
    preflight.check_training(cfg, scope)

    runner = _build_runner(cfg)
    add_guards(runner)
    guard_data(runner)
    with progress_bar(runner):
        runner.train()


@_command
def test(argv: Sequence[str] | None = None) -> None:
    """Evaluates a checkpoint, and draws or dumps its predictions."""
    args = _test_parser().parse_args(argv)
    cfg = _configure(args)
    scope = scope_of(cfg)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.out:
        testing.check_out(scope, args.out)
        if scope.name == 'mmseg':
            testing.set_segmentation_out(cfg, args.out)
    if args.show or args.show_dir:
        testing.set_drawing(cfg, scope, args.show, args.show_dir, args.wait_time)
    preflight.check_testing(cfg, scope)
    if args.tta:
        testing.set_tta(cfg, scope)
    if args.input_size is not None:
        set_input_size(cfg, scope, args.input_size)
    testing.drop_averaging(cfg)

    runner = _build_runner(cfg)
    guard_data(runner)
    if args.out and scope.name != 'mmseg':
        testing.add_dump(runner, scope, args.out)
    with progress_bar(runner):
        runner.test()


def _configure(args: argparse.Namespace) -> Config:
    """Reads the config and applies the options that training and testing share."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = options.read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    options.set_work_dir(cfg, args.work_dir)
    if args.data_root:
        move_data_root(cfg, args.data_root)
    if cfg.get('default_scope') == 'mmpretrain':
        _set_classification_loaders(cfg)
    options.set_workers(cfg)
    return cfg


def _set_classification_loaders(cfg: Config) -> None:
    """mmpretrain's configs leave to its tools how batches are put together; mmengine's default would not fit."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader is not None:
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)


def _build_runner(cfg: Config) -> Runner:
    prepare_cpu_processes(cfg)
    with build_errors('building the run failed'):
        return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _train_parser() -> argparse.ArgumentParser:
    parser = _parser(train)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='continue from a checkpoint; without a path, from the last one in the work folder',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision (needs a GPU)')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate to the actual batch size')
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        '--pretrained', metavar='PATH', help='start from these weights instead of the ones in the config'
    )
    start.add_argument('--from-scratch', action='store_true', help='start from random weights')
    return parser


def _test_parser() -> argparse.ArgumentParser:
    parser = _parser(test)
    parser.add_argument('checkpoint', help='checkpoint to evaluate')
    parser.add_argument('--out', help='keep the predictions: a .pkl file, for segmentation a folder of PNG files')
    parser.add_argument('--show', action='store_true', help='show ground truth and predictions in windows')
    parser.add_argument('--show-dir', metavar='DIR', help='draw ground truth and predictions into this folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that a window stays (2)')
    parser.add_argument('--input-size', type=int, metavar='N', help='classify squares of N pixels, at any resolution')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation (not with masks)')
    return parser


def _parser(command: Command) -> argparse.ArgumentParser:
    """A parser with the options that training and testing share."""
    parser = argparse.ArgumentParser(description=command.__doc__)
    parser.add_argument('config', help='config file, for example configs/mask_rcnn_msvmamba_n_shapes.py')
    parser.add_argument('--work-dir', metavar='DIR', help='where logs and checkpoints go (work_dirs/<config>)')
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help='where the data set is; moves every path of the config that is below its data_root',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override parts of the config, for example train_dataloader.batch_size=4 or key="[a,b]"',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch passes one spelling or the other, depending on its version.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser
