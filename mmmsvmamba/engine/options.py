"""Turns command-line options into changes of a config, each before anything is built."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from .errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def read_config(path: str, overrides: dict[str, Any] | None) -> Config:
    """Reads a config file and merges `--cfg-options` into it.

    Args:
        path: absolute, or relative to the current folder or to the repository, so that `configs/…` works anywhere.
        overrides: keys in dotted form and their values.

    Raises:
        UserError: if there is no such file, or a file that it is based on is missing.
    """
    places = [Path(path), REPOSITORY / path]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        known = sorted(file.name for file in (REPOSITORY / 'configs').glob('*.py'))
        raise UserError(
            f'There is no config file {path} (looked in {Path.cwd()} and {REPOSITORY}).'
            + (f' configs/ has {", ".join(known)}.' if known else '')
        )
    try:
        cfg = Config.fromfile(str(found))
    except FileNotFoundError as error:
        raise UserError(f'{found} is based on a file that is missing: {error}') from error
    if overrides:
        cfg.merge_from_dict(overrides)
    return cfg


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Sets where a run writes: the option, else what the config says, else `work_dirs/<name of the config>`."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(cfg.filename).stem)


def set_amp(cfg: Config) -> None:
    """Switches mixed precision on.

    Raises:
        UserError: without a GPU, or with an optimizer wrapper that has no mixed-precision twin.
    """
    if not torch.cuda.is_available():
        raise UserError('--amp needs a GPU and torch sees none. Train without it.')
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp replaces the optimizer wrapper OptimWrapper, but the config has {kind}.')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def set_auto_scale_lr(cfg: Config) -> None:
    """Lets mmengine scale the learning rate from the recipe's batch size to the actual one.

    Raises:
        UserError: if the config does not say which batch size its learning rate is for.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UserError(
            '--auto-scale-lr needs to know for which batch size the learning rate was chosen: add '
            'auto_scale_lr = dict(enable=True, base_batch_size=16) to the config.'
        )
    cfg.auto_scale_lr.enable = True


def set_resume(cfg: Config, resume: str) -> None:
    """Continues a run: from the last checkpoint in the work folder (`auto`) or from a given file.

    Raises:
        UserError: if the checkpoint to continue from is not there.
    """
    cfg.resume = True
    cfg.load_from = None if resume == 'auto' else resume
    if resume != 'auto':
        if not Path(resume).is_file():
            raise UserError(f'--resume {resume}: there is no such file.')
        return
    pointer = Path(cfg.work_dir) / 'last_checkpoint'
    if not pointer.is_file():  # nothing saved yet: --resume then starts anew, as in every OpenMMLab tool
        return
    last = pointer.read_text().strip()
    if not Path(last).is_file():
        present = sorted(str(file) for file in Path(cfg.work_dir).glob('*.pth'))
        raise UserError(
            f'{pointer} names {last or "no file"} as the last checkpoint, which is not there. Name one with '
            f'--resume PATH; in the folder: {", ".join(present) or "none"}.'
        )
    cfg.load_from = last


def set_pretrained(cfg: Config, path: str) -> None:
    """Starts from the weights in `path` instead of the ones that the config names.

    Raises:
        UserError: if the model has no backbone that could take them.
    """
    targets = [node for node in _dicts(cfg.model) if _is_pretrained(node.get('init_cfg'))]
    if not targets and isinstance(cfg.model.get('backbone'), dict):
        targets = [cfg.model.backbone]
    if not targets:
        raise UserError('--pretrained: the model has neither a backbone nor an init_cfg of type Pretrained.')
    for node in targets:
        node['init_cfg'] = dict(type='Pretrained', checkpoint=path)


def drop_pretrained(cfg: Config) -> None:
    """Starts from random weights: removes every reference to pretrained ones."""
    for node in _dicts(cfg.model):
        if _is_pretrained(node.get('init_cfg')):
            del node['init_cfg']
        if isinstance(node.get('pretrained'), str):
            del node['pretrained']
    cfg.load_from = None


def pretrained_files(cfg: Config) -> list[str]:
    """The files and URLs that building the model of a config, or starting its training, will read."""
    files = [node['init_cfg']['checkpoint'] for node in _dicts(cfg.model) if _is_pretrained(node.get('init_cfg'))]
    if cfg.get('load_from'):
        files.append(cfg.load_from)
    return files


def _is_pretrained(init_cfg: Any) -> bool:
    return isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained'


def _dicts(node: Any) -> Iterator[dict]:
    """Yields every dict in a config, the outermost first."""
    if isinstance(node, dict):
        yield node
        for value in list(node.values()):
            yield from _dicts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _dicts(value)
