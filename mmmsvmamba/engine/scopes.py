"""The three OpenMMLab libraries whose configs the tools run, told apart by a config's `default_scope`."""

import importlib.util
from dataclasses import dataclass

from mmengine.config import Config

from .errors import UserError


@dataclass(frozen=True)
class Scope:
    """What the tools must know of a library: its name, what it trains, what draws its predictions."""

    name: str
    task: str
    visualization_hook: str
    visualizer: str


SCOPES = {
    scope.name: scope
    for scope in (
        Scope('mmdet', 'detection', 'DetVisualizationHook', 'DetLocalVisualizer'),
        Scope('mmseg', 'segmentation', 'SegVisualizationHook', 'SegLocalVisualizer'),
        Scope('mmpretrain', 'classification', 'ClassPictureHook', 'UniversalVisualizer'),
    )
}


def scope_of(cfg: Config) -> Scope:
    """Returns the library that a config is written for.

    Raises:
        UserError: if the config names another library or none, or that library is not installed.
    """
    name = cfg.get('default_scope')
    if name not in SCOPES:
        raise UserError(
            f'The config sets default_scope = {name!r}; these tools run {", ".join(SCOPES)}. '
            'Add for example `default_scope = "mmdet"` to it.'
        )
    if importlib.util.find_spec(name) is None:
        raise UserError(
            f'The config needs {name}, which is not installed here. `python tools/check_env.py` names the command.'
        )
    return SCOPES[name]
