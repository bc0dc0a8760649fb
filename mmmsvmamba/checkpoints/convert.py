"""Conversion of whole published files, for every kind of model that takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mmmsvmamba.loading import CheckpointError

from .families import recognise_family
from .hierarchical import convert_hierarchical
from .report import some
from .vim import convert_vim
from .wrapping import below, rename_old, strip, unwrap

TARGETS = ('backbone', 'classifier', 'detector', 'segmentor')


def convert_official(state_dict: Mapping, target: str = 'backbone', wrapper: str | None = None) -> dict[str, Tensor]:
    """Converts a published MSVMamba, VMamba or Vim state dict to the names and shapes of this package.

    Args:
        state_dict: A published state dict, or the dict around it ('model', 'model_ema', 'state_dict'); keys may carry
            `module.` and `backbone.` prefixes, and old or new names.
        target: 'backbone' (the registered backbone: classifier dropped, output norms taken where they are there),
            'classifier' (mmpretrain's ImageClassifier: `backbone.`, `head.fc.`, the classifier's norm is that of the
            last stage, in Vim `final_norm`), 'detector' or 'segmentor' (`backbone.*` is converted, all else passed
            through).
        wrapper: Which weights of the dict around it to take; by default those that the authors report: 'model_ema' for
            the NeurIPS family of MSVMamba, 'model' for all others.

    Returns:
        A new state dict; tensors are views of the given ones.

    Raises:
        CheckpointError: The keys are not those of a published file.
        ValueError: An unknown target.
    """
    if target not in TARGETS:
        raise ValueError(f'target must be one of {", ".join(TARGETS)}, got {target!r}')
    weights = strip(unwrap(state_dict, wrapper), 'module.')
    rest = {}
    if target in ('detector', 'segmentor'):
        rest = {key: value for key, value in weights.items() if not key.startswith('backbone.')}
    if any(key.startswith('backbone.') for key in weights):
        weights = below(weights, 'backbone.')
    elif target in ('detector', 'segmentor'):
        raise CheckpointError(f'no key starts with "backbone.", so this is no {target}; it has {some(weights)}')
    weights = rename_old(weights)
    family = recognise_family(weights)

    if family == 'vim':
        converted, head = convert_vim(weights)
    else:
        converted, head = convert_hierarchical(weights, family, classifies=target == 'classifier')
    if target == 'backbone':
        return converted
    if target == 'classifier' and not head:
        raise CheckpointError(
            'the file has no classifier (its keys end with head.weight); convert it with target="backbone"'
        )
    extra = head if target == 'classifier' else rest
    return {**{f'backbone.{key}': value for key, value in converted.items()}, **extra}


def in_model_form(checkpoint: Mapping) -> Mapping:
    """Gives a published classification file the form of a model's checkpoint, so that whole models load it too; other
    files pass unchanged.

    Args:
        checkpoint: What a file holds.

    Returns:
        {'state_dict': …} with the published names under `backbone.`, and the classifier's last layer as `head.fc.`,
        where mmpretrain has it.
    """
    if not isinstance(checkpoint, Mapping) or 'state_dict' in checkpoint:
        return checkpoint
    held = [name for name in ('model', 'model_ema') if isinstance(checkpoint.get(name), Mapping)]
    if not held or not _is_published(checkpoint[held[0]]):
        return checkpoint
    weights = rename_old(strip(unwrap(checkpoint), 'module.'))
    head = re.compile(r'(classifier\.)?head\.')
    return {
        'state_dict': {
            head.sub('head.fc.', key) if head.match(key) else f'backbone.{key}': value for key, value in weights.items()
        }
    }


def _is_published(weights: Mapping) -> bool:
    try:
        recognise_family(rename_old(strip(weights, 'module.')))
    except CheckpointError:
        return False
    return True
