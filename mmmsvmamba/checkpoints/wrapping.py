"""What published files put around and before the names of weights: dicts, prefixes, names of early releases."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mmmsvmamba.loading import CheckpointError

from .families import FAMILIES, is_vim, recognise_family
from .report import log, some

WRAPPERS = ('state_dict', 'model', 'model_ema')

#: Names of early releases -> the names that followed.
_OLD_NAMES = (
    (r'^patch_embed\.proj\.', 'patch_embed.0.'),
    (r'^patch_embed\.norm\.', 'patch_embed.2.'),
    (r'^(layers\.\d+\.blocks\.\d+)\.ln_1\.', r'\1.norm.'),
    (r'^(layers\.\d+\.blocks\.\d+)\.self_attention\.', r'\1.op.'),
    (r'^(norm|head)\.', r'classifier.\1.'),
)


def unwrap(state_dict: Mapping, wrapper: str | None = None) -> Mapping:
    """The weights in a file's dict: those named, or those that the authors report, or the dict itself.

    Raises:
        CheckpointError: There is no `wrapper`, or one of 'model' and 'model_ema' must be chosen for unknown weights.
    """
    held = [name for name in WRAPPERS if isinstance(state_dict.get(name), Mapping)]
    if wrapper is not None:
        if wrapper not in held:
            raise CheckpointError(f'the file has no {wrapper!r}; it has {some(state_dict)}')
        return state_dict[wrapper]
    if not held:
        return state_dict
    name = held[0]
    if 'model_ema' in held and 'model' in held:
        family = recognise_family(rename_old(strip(strip(state_dict['model'], 'module.'), 'backbone.')))
        name = FAMILIES[family].wrapper
        log(f'the file holds {" and ".join(held)}: took {name!r}, the weights that the authors report')
    return state_dict[name]


def strip(weights: Mapping, prefix: str) -> dict:
    """Takes a prefix off all keys that have it."""
    return {key.removeprefix(prefix): value for key, value in weights.items()}


def below(weights: Mapping, prefix: str) -> dict:
    """The entries whose keys have a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def rename_old(weights: Mapping) -> dict:
    """Gives weights of early releases the names of later ones; Vim's have had theirs all along."""
    if is_vim(weights):
        return dict(weights)
    renamed = {}
    for key, value in weights.items():
        for pattern, replacement in _OLD_NAMES:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed
