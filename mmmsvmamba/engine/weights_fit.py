"""Whether checkpoint files fit the model of a config, looked at before a run writes anything.

mmengine loads with `strict=False`: what is missing or has another shape stays random, and only a log line says so.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from mmmsvmamba.loading import CheckpointError

from .building import build_model
from .checkpoint_loader import load_from_http_safely, load_from_local_safely
from .errors import UserError
from .options import initial_weights
from .scopes import Scope


def read_checkpoint(file: str) -> Mapping | None:
    """Opens a checkpoint file, or a URL, which is downloaded once; None for what only the libraries can find.

    Raises:
        CheckpointError: if the file is truncated, dangerous or no checkpoint, or the download fails.
    """
    if file.startswith(('http://', 'https://')):
        return load_from_http_safely(file, 'cpu')
    return None if '://' in file else load_from_local_safely(file, 'cpu')


def check_model_fits(cfg: Config, scope: Scope, file: str, checkpoint: Mapping | None) -> None:
    """Checks that a file holds every weight of the model of a config, as testing and resuming need it.

    Args:
        cfg: the config.
        scope: its library.
        file: the name of the file, for messages.
        checkpoint: what `read_checkpoint` has read from it.

    Raises:
        CheckpointError: naming what is missing and what has another shape.
        UserError: if the model cannot be built.
    """
    if checkpoint is None:
        return
    model = build_model(cfg, scope)
    missing, unexpected, misshaped = _load(model, _weights(checkpoint), file)
    missing = [key for key in missing if not key.endswith('num_batches_tracked')]
    if missing or misshaped:
        lines = [f'{file} does not fit the {type(model).__name__} of {_name(cfg)}:']
        lines += [f'  {len(missing)} weights are missing: {_some(missing)}'] if missing else []
        lines += [f'  {len(misshaped)} have another shape: {_some(misshaped, 3)}'] if misshaped else []
        lines += ['They would stay random. Use the config that the file was trained with.']
        raise CheckpointError('\n'.join(lines))
    if unexpected:
        print_log(f'{file} has {len(unexpected)} weights that the model does not use: {_some(unexpected)}', 'current')


def check_start_fits(cfg: Config, backbone: nn.Module | None) -> None:
    """Opens every file that a training starts from, and loads it into a trial copy of our backbone.

    Args:
        cfg: the config.
        backbone: the backbone as the config builds it, or None if it is another library's.

    Raises:
        CheckpointError: if a file cannot be read or belongs to another architecture.
    """
    whole = nn.Module()
    whole.backbone = backbone
    for node, weights in initial_weights(cfg.model):
        checkpoint = read_checkpoint(weights['checkpoint'])
        if checkpoint is None or backbone is None:
            continue
        if node is cfg.model.get('backbone'):
            _load(backbone, _weights(checkpoint, weights.get('prefix')), weights['checkpoint'])
        elif node is cfg.model:
            _load(whole, _weights(checkpoint, weights.get('prefix')), weights['checkpoint'])
    if cfg.get('load_from') and not cfg.get('resume'):
        checkpoint = read_checkpoint(cfg.load_from)
        if checkpoint is not None and backbone is not None:
            _load(whole, _weights(checkpoint), cfg.load_from)


def check_resumable(file: str, checkpoint: Mapping | None) -> None:
    """Checks that a checkpoint, as `read_checkpoint` has read it from `file`, is one of a training, not weights alone.

    Raises:
        UserError: if it does not say how far the training had come.
    """
    if checkpoint is None:
        return
    meta = checkpoint.get('meta')
    if not isinstance(meta, Mapping) or not {'epoch', 'iter'} <= set(meta):
        raise UserError(
            f'--resume {file}: the file holds weights only, no state of a training; start from it with '
            f'--pretrained {file} (a backbone) or --cfg-options load_from={file} (a whole model).'
        )


def _weights(checkpoint: Mapping, prefix: str | None = None) -> dict:
    """The weights in a checkpoint without the prefix of a wrapper; with `prefix`, those below it."""
    weights = {key.removeprefix('module.'): value for key, value in checkpoint.get('state_dict', checkpoint).items()}
    if not prefix:
        return weights
    prefix = prefix.rstrip('.') + '.'
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _load(module: nn.Module, weights: dict, file: str) -> tuple[list[str], list[str], list[str]]:
    """Loads as mmengine does, with the hooks of all modules; returns missing keys, unexpected ones, wrong shapes."""
    missing, unexpected, misshaped = [], [], []

    def load(part: nn.Module, prefix: str = '') -> None:
        part._load_from_state_dict(weights, prefix, {}, True, missing, unexpected, misshaped)
        for name, child in part._modules.items():
            if child is not None:
                load(child, f'{prefix}{name}.')

    try:
        load(module)
    except CheckpointError as error:
        raise CheckpointError(f'{file}: {error}') from error
    return missing, unexpected, misshaped


def _name(cfg: Config) -> str:
    return Path(cfg.filename).name if cfg.filename else 'the config'


def _some(keys: Iterable[str], most: int = 4) -> str:
    keys = list(keys)
    return ', '.join(keys[:most]) + (', …' if len(keys) > most else '')
