"""Moves a whole config to another data folder.

mmengine copies `data_root` into datasets and evaluators when it parses a config, so that overriding the variable later
changes none of them (`--cfg-options data_root=…` does nothing). Here every copy is moved.
"""

from typing import Any

from mmengine.config import Config

from .errors import UserError

# Keys whose paths are not data: a checkpoint or a log folder stays where it is.
NOT_DATA = ('model', 'work_dir', 'load_from')


def move_data_root(cfg: Config, new_root: str) -> None:
    """Replaces the data root of `cfg` in place, in datasets at any depth, evaluators and pipelines.

    Args:
        cfg: a config whose datasets name one `data_root`.
        new_root: the folder to use in its place.

    Raises:
        UserError: if the datasets name no root, or several, since there is no telling which one is meant.
    """
    roots = sorted({root.rstrip('/') for key in _dataloaders(cfg) for root in _data_roots(cfg[key])})
    if len(roots) != 1:
        found = ', '.join(roots) or 'none'
        raise UserError(
            f'--data-root moves the one data_root that a config has, but here its datasets have '
            f'{len(roots)} ({found}). Set them one by one, for example with '
            '--cfg-options train_dataloader.dataset.data_root=DIR.'
        )
    for key in cfg:
        if key not in NOT_DATA:
            cfg[key] = _moved(cfg[key], roots[0], new_root.rstrip('/') or '/')


def _dataloaders(cfg: Config) -> list[str]:
    return [key for key in ('train_dataloader', 'val_dataloader', 'test_dataloader') if cfg.get(key)]


def _data_roots(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node['data_root']] if node.get('data_root') else []
        return own + [root for value in node.values() for root in _data_roots(value)]
    if isinstance(node, list | tuple):
        return [root for value in node for root in _data_roots(value)]
    return []


def _moved(node: Any, old: str, new: str) -> Any:
    """A copy of `node` in which each string that is `old` or a path below it starts with `new` instead."""
    if isinstance(node, str):
        return new + node[len(old) :] if node == old or node.startswith(f'{old}/') else node
    if isinstance(node, dict):
        return type(node)({key: _moved(value, old, new) for key, value in node.items()})
    if isinstance(node, list | tuple):
        return type(node)(_moved(value, old, new) for value in node)
    return node
