"""Turns command-line options into changes of a config, each before anything is built."""

import difflib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError

from .errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
#: Where an installed package has its configs.
SHIPPED = Path(__file__).resolve().parents[1] / '.mim'


def read_config(path: str, overrides: dict[str, Any] | None) -> Config:
    """Reads a config file and merges `--cfg-options` into it.

    Args:
        path: absolute, or relative to the current folder, to the repository or to the package's own files, so that
            `configs/…` works anywhere; or `LIBRARY::…`, a config that an installed library ships.
        overrides: keys in dotted form and their values.

    Raises:
        UserError: if there is no such file, a file that it is based on is missing, it is not valid, or an override
            does not fit it.
    """
    places = [Path(path), REPOSITORY / path, SHIPPED / path]
    found = next((place for place in places if place.is_file()), None)
    if found is None and '::' in path:
        found = _library_config(path)
    if found is None:
        known = sorted({file.name for root in (REPOSITORY, SHIPPED) for file in (root / 'configs').glob('*.py')})
        raise UserError(
            f'There is no config file {path} (looked in {Path.cwd()} and {REPOSITORY}).'
            + (f' configs/ has {", ".join(known)}.' if known else '')
        )
    try:
        cfg = Config.fromfile(str(found))
    except FileNotFoundError as error:
        raise UserError(f'{found} is based on a file that is missing: {error}') from error
    except (SyntaxError, ConfigParsingError) as error:
        raise UserError(f'{found} is not a valid config: {error}') from error
    try:
        cfg.merge_from_dict(overrides or {})
    except (LookupError, TypeError, ValueError) as error:
        given = ' '.join(f'{key}={value}' for key, value in overrides.items())
        raise UserError(f'--cfg-options {given} cannot be merged into {found.name}: {error}') from error
    return cfg


def _library_config(path: str) -> Path:
    """The file of a config that a library ships.

    Raises:
        UserError: if the library is not installed or has no such config.
    """
    library, _, name = path.partition('::')
    spec = importlib.util.find_spec(library) if library.isidentifier() else None
    if spec is None or spec.origin is None:
        raise UserError(
            f'{path}: {library} is not installed here. `python tools/check_env.py` names the command for mmdet, mmseg '
            'and mmpretrain.'
        )
    root = Path(spec.origin).parent / '.mim' / 'configs'
    if not (root / name).is_file():
        names = [file.relative_to(root).as_posix() for file in root.rglob('*.py')]
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        raise UserError(
            f'{library} has no config {name}'
            + (f'; near are {", ".join(close)}.' if close else f'; it has {len(names)} below {root}.')
        )
    return root / name


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Sets where a run writes: the option, else what the config says, else `work_dirs/<name of the config>`.

    Raises:
        UserError: if there is a file in its place.
    """
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(cfg.filename).stem)
    folder = Path(cfg.work_dir)
    taken = next((place for place in (folder, *folder.parents) if place.is_file()), None)
    if taken is not None:
        raise UserError(
            f'The work folder {folder} cannot be made: {taken} is a file. Name another with --work-dir DIR.'
        )


def set_workers(cfg: Config) -> None:
    """Lets `num_workers=0` be set alone: without workers there are none to keep, which torch refuses."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader and loader.get('num_workers', 0) == 0 and loader.get('persistent_workers'):
            loader.persistent_workers = False


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

    The weights that the run once started from are then needed no more.

    Raises:
        UserError: if the checkpoint to continue from is not there.
    """
    cfg.resume = True
    cfg.load_from = None if resume == 'auto' else resume
    if resume != 'auto':
        if not Path(resume).is_file():
            raise UserError(f'--resume {resume}: there is no such file.')
        _drop_initial_weights(cfg)
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
    _drop_initial_weights(cfg)


def set_pretrained(cfg: Config, path: str) -> None:
    """Starts from the weights in `path` instead of the ones that the config names.

    Raises:
        UserError: if the model has no backbone that could take them.
    """
    backbone = cfg.model.get('backbone')
    # `pretrained` beside a backbone means the backbone's weights
    targets = []
    for node, _ in initial_weights(cfg.model):
        inner = node.get('backbone')
        target = inner if isinstance(node.get('pretrained'), str) and isinstance(inner, dict) else node
        if not any(target is known for known in targets):
            targets.append(target)
    if not targets and isinstance(backbone, dict):
        targets = [backbone]
    if not targets:
        raise UserError('--pretrained: the model has neither a backbone nor an init_cfg of type Pretrained.')
    _drop_initial_weights(cfg)
    for node in targets:
        others = node.get('init_cfg')
        new = dict(type='Pretrained', checkpoint=path)
        node['init_cfg'] = [*others, new] if isinstance(others, list | tuple) else new


def drop_pretrained(cfg: Config) -> None:
    """Starts from random weights: removes every reference to pretrained ones."""
    _drop_initial_weights(cfg)
    cfg.load_from = None


def pretrained_files(cfg: Config) -> list[str]:
    """The files and URLs that building the model of a config, or starting its training, will read."""
    files = [weights['checkpoint'] for _, weights in initial_weights(cfg.model)]
    if cfg.get('load_from'):
        files.append(cfg.load_from)
    return files


def initial_weights(model: dict) -> Iterator[tuple[dict, dict]]:
    """Yields each part of a model that names weights to start from, with its `init_cfg` of type Pretrained.

    An `init_cfg` may be one dict or a list of them; the older spelling `pretrained='FILE'` counts as well.
    """
    for node in _dicts(model):
        given = node.get('init_cfg')
        for init_cfg in given if isinstance(given, list | tuple) else [given]:
            if _is_pretrained(init_cfg):
                yield node, init_cfg
        if isinstance(node.get('pretrained'), str):
            yield node, dict(type='Pretrained', checkpoint=node['pretrained'])


def _drop_initial_weights(cfg: Config) -> None:
    for node, _ in list(initial_weights(cfg.model)):
        given = node.get('init_cfg')
        if isinstance(given, list | tuple):
            node['init_cfg'] = [init_cfg for init_cfg in given if not _is_pretrained(init_cfg)]
        elif _is_pretrained(given):
            del node['init_cfg']
        if isinstance(node.get('pretrained'), str):
            del node['pretrained']


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
