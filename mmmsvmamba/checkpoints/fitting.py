"""The check that what a hierarchical backbone is given to load fits it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from mmmsvmamba.loading import CheckpointError

from .convert import convert_official
from .families import FAMILIES, recognise_family
from .report import log, misfit, some
from .wrapping import below, rename_old, strip, unwrap


def fit_backbone_weights(
    module: nn.Module, state_dict: dict, prefix: str, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
) -> None:
    """Load-state-dict pre-hook of the backbones: converts published weights in place and stops at anything that does
    not fit.

    Runs on every path that loads weights. Only expected differences pass, and are logged: output norms that the file
    lacks or the backbone does not have, stages beyond the last one in use, and the classifier. With out_indices=(3,),
    as classifiers have it, a published classifier's norm becomes that of the output.

    Raises:
        CheckpointError: Names the missing, unexpected and mis-shaped keys.
    """
    given = below(state_dict, prefix)
    if not prefix:
        given = strip(unwrap(given), 'module.')
        if any(key.startswith('backbone.') for key in given):
            given = below(given, 'backbone.')
    own = module.state_dict()
    last = module.out_indices[-1]
    hint = ''
    if any(key.startswith(('patch_embed.', 'layers.')) for key in given):
        published = rename_old(given)
        given = convert_official(published)
        family = recognise_family(published)
        log(f'converted published {family} weights for {type(module).__name__}')
        if FAMILIES[family].backbone != type(module).__name__:
            hint = (
                f"These are weights of {FAMILIES[family].backbone}: load them with type='{FAMILIES[family].backbone}'."
            )
        if any(key.startswith('classifier.') for key in published):
            log('dropped the classifier')
        if module.out_indices == (3,):  # a classifier's backbone: its only output norm is the published classifier's
            norm = {key: value for key, value in published.items() if key.startswith('classifier.norm.')}
            given = {**{key.replace('classifier.norm.', 'norm3.'): value for key, value in norm.items()}, **given}
    unused = [key for key in given if key not in own and (re.match(r'norm\d\.', key) or _beyond(key, last))]
    fresh = [key for key in own if key not in given and re.match(r'norm\d\.', key)]
    fitting = {key: value for key, value in given.items() if key not in unused}
    missing = [key for key in own if key not in fitting and key not in fresh]
    unexpected = [key for key in fitting if key not in own]
    misshaped = [
        f'{key} {tuple(value.shape)} (the model has {tuple(own[key].shape)})'
        for key, value in fitting.items()
        if key in own and value.shape != own[key].shape
    ]
    if missing or unexpected or misshaped:
        raise CheckpointError(misfit(module, prefix, missing, unexpected, misshaped, bool(given), hint))
    if fresh:
        log(f'the file has no {_stages(fresh)}: left at initialisation')
    if unused:
        log(f'not used by out_indices={module.out_indices}: {some(unused)}')
    for key in [key for key in state_dict if key.startswith(prefix)]:
        del state_dict[key]
    state_dict.update({prefix + key: value for key, value in fitting.items()})
    for key in fresh:
        state_dict[prefix + key] = own[key]


def _beyond(key: str, last: int) -> bool:
    """Whether a key belongs to a stage, or a step to a stage, beyond the last one in use."""
    match = re.match(r'stages\.(\d)\.(downsample\.)?', key)
    return bool(match) and (int(match[1]) > last or (int(match[1]) == last and match[2] is not None))


def _stages(keys: Iterable[str]) -> str:
    return ', '.join(sorted({key.split('.')[0] for key in keys}))
