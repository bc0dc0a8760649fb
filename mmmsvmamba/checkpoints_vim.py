"""Published Vim weights -> our state dicts: pure functions, and the check that what is loaded fits.

The published names live here and nowhere else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .checkpoints import WRAPPERS, _log, _misfit, _some, _strip
from .loading import CheckpointError

__all__ = ['convert_vim', 'fit_vim_weights', 'in_vim_model_form', 'is_vim']

TARGETS = ('backbone', 'classifier')
#: Names in a mixer -> ours, of both directions; `_b` marks the backward ones.
_OF_DIRECTION = {
    'conv1d.weight': ('forwards', 'conv.weight'),
    'conv1d.bias': ('forwards', 'conv.bias'),
    'conv1d_b.weight': ('backwards', 'conv.weight'),
    'conv1d_b.bias': ('backwards', 'conv.bias'),
}
#: Likewise, with a dimension for the route group in front.
_OF_SCAN = {
    'x_proj.weight': ('forwards', 'x_proj_weight'),
    'dt_proj.weight': ('forwards', 'dt_weight'),
    'dt_proj.bias': ('forwards', 'dt_bias'),
    'A_log': ('forwards', 'A_log'),
    'D': ('forwards', 'D'),
    'x_proj_b.weight': ('backwards', 'x_proj_weight'),
    'dt_proj_b.weight': ('backwards', 'dt_weight'),
    'dt_proj_b.bias': ('backwards', 'dt_bias'),
    'A_b_log': ('backwards', 'A_log'),
    'D_b': ('backwards', 'D'),
}
_OUTSIDE = {
    'cls_token': 'cls_token',
    'pos_embed': 'pos_embed',
    'patch_embed.proj.weight': 'patch_embed.weight',
    'patch_embed.proj.bias': 'patch_embed.bias',
    'norm_f.weight': 'final_norm.weight',
}
#: Two class tokens, which are one tensor here.
_DOUBLE = ('cls_token_head', 'cls_token_tail')
#: Parts that a file may lack, or bring for nothing.
_OUTPUTS = re.compile(r'(norm\d+|pyramid)\.')


def is_vim(weights: Mapping) -> bool:
    """Whether these are the published names of a Vim, without prefixes."""
    return any(re.fullmatch(r'layers\.\d+\.mixer\.A_b_log', str(key)) for key in weights)


def convert_vim(weights: Mapping, target: str = 'backbone') -> dict[str, Tensor]:
    """Converts a published Vim state dict to the names and shapes of this package.

    Args:
        weights: A published state dict; keys without `module.` and `backbone.`.
        target: 'backbone' (the registered backbone: the classifier is dropped, its norm is `final_norm`) or
            'classifier' (mmpretrain's ImageClassifier without neck: `backbone.`, `head.fc.`).

    Returns:
        A new state dict; tensors are views of the given ones, but for two class tokens, which are joined.

    Raises:
        CheckpointError: The keys are not those of a published Vim file.
        ValueError: An unknown target.
    """
    if target not in TARGETS:
        raise ValueError(f'target must be one of {", ".join(TARGETS)}, got {target!r}')
    if not is_vim(weights):
        raise CheckpointError(f'these are not the weights of a published Vim model; the file has {_some(weights)}')
    converted, head = {}, {}
    doubled = all(key in weights for key in _DOUBLE)
    if doubled:
        converted['cls_token'] = torch.cat([weights[key] for key in _DOUBLE], dim=1)
    for key, value in weights.items():
        if key.startswith('head.'):
            head['head.fc.' + key.removeprefix('head.')] = value
        elif not (doubled and key in _DOUBLE):
            converted.update(_convert_entry(key, value))
    if target == 'backbone':
        return converted
    if not head:
        raise CheckpointError('the file has no classifier (head.*); convert it with target="backbone"')
    return {**{f'backbone.{key}': value for key, value in converted.items()}, **head}


def in_vim_model_form(checkpoint: Mapping) -> Mapping:
    """Gives a published Vim file the form of a model's checkpoint, so that whole models load it too; other files pass
    unchanged.

    Args:
        checkpoint: What a file holds.

    Returns:
        {'state_dict': …} with the published names under `backbone.`, and the classifier as `head.fc.`, where
        mmpretrain has it.
    """
    if not isinstance(checkpoint, Mapping) or 'state_dict' in checkpoint:
        return checkpoint
    held = next((name for name in WRAPPERS if isinstance(checkpoint.get(name), Mapping)), None)
    if held is None:
        return checkpoint
    weights = _strip(checkpoint[held], 'module.')
    if not is_vim(weights):
        return checkpoint
    return {
        'state_dict': {
            f'head.fc.{key.removeprefix("head.")}' if key.startswith('head.') else f'backbone.{key}': value
            for key, value in weights.items()
        }
    }


def fit_vim_weights(
    module: nn.Module, state_dict: dict, prefix: str, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
) -> None:
    """Load-state-dict pre-hook of Vim: converts published weights in place, brings position embeddings to the model's
    grid, and stops at anything that does not fit.

    Runs on every path that loads weights. Only expected differences pass, and are logged: norms of outputs and a
    pyramid that the file lacks or the model does not have, blocks beyond the last one in use, and the classifier.

    Raises:
        CheckpointError: Names the missing, unexpected and mis-shaped keys, or the other number of class tokens.
    """
    given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    if not prefix:
        given = _unwrap(given)
    own = module.state_dict()
    if is_vim(given):
        _log(f'converted published Vim weights for {type(module).__name__}')
        if any(key.startswith('head.') for key in given):
            _log('dropped the classifier')
        given = convert_vim(given)
    if 'pos_embed' in given:
        given = {**given, 'pos_embed': _fit_positions(module, given)}

    last = module.out_indices[-1]
    unused = [key for key in given if key not in own and (_is_output(key) or _beyond(key, last))]
    fresh = [key for key in own if key not in given and _OUTPUTS.match(key)]
    fitting = {key: value for key, value in given.items() if key not in unused}
    missing = [key for key in own if key not in fitting and key not in fresh]
    unexpected = [key for key in fitting if key not in own]
    misshaped = [
        f'{key} {tuple(value.shape)} (the model has {tuple(own[key].shape)})'
        for key, value in fitting.items()
        if key in own and value.shape != own[key].shape
    ]
    if missing or unexpected or misshaped:
        raise CheckpointError(_misfit(module, prefix, missing, unexpected, misshaped, bool(given)))
    if fresh:
        parts = dict.fromkeys(key.split('.')[0] for key in fresh)
        _log(f'the file has no {", ".join(parts)}: left at initialisation')
    if unused:
        _log(f'not used by out_type={module.out_type!r}, out_indices={module.out_indices}: {_some(unused)}')
    for key in [key for key in state_dict if key.startswith(prefix)]:
        del state_dict[key]
    state_dict.update({prefix + key: value for key, value in fitting.items()})
    for key in fresh:
        state_dict[prefix + key] = own[key]


def _fit_positions(module: nn.Module, given: Mapping) -> Tensor:
    """Position embeddings of a file, interpolated to the grid of the model."""
    from .layers.class_tokens import resize_positions  # needs mmcv, which the conversion does without

    positions, layout = given['pos_embed'], module.layout
    tokens = given['cls_token'].shape[1] if 'cls_token' in given else 0
    entries = positions.shape[1] if positions.dim() == 3 else 0
    side = math.isqrt(max(0, entries - layout.count))
    if tokens != layout.count or side == 0 or side**2 + tokens != entries:
        raise CheckpointError(
            f'the file has {tokens} class tokens and position embeddings {tuple(positions.shape)}; this '
            f'{type(module).__name__} has cls_token={layout.kind!r}: {layout.count} class tokens and as many entries '
            'besides those of a square of patches, such as 14 × 14. Choose the arch with the cls_token of the file.'
        )
    if (side, side) != module.grid and positions.shape[2] == module.pos_embed.shape[2]:
        _log(f'interpolated position embeddings from {side} × {side} patches to {module.grid[0]} × {module.grid[1]}')
        return resize_positions(positions, (side, side), module.grid, layout)
    return positions


def _convert_entry(key: str, value: Tensor) -> dict[str, Tensor]:
    """One published entry (without prefix) -> one or two of ours."""
    if key in _OUTSIDE:
        return {_OUTSIDE[key]: value}
    if match := re.fullmatch(r'layers\.(\d+)\.(norm\.weight|mixer\.(.+))', key):
        block, name = f'blocks.{match[1]}', match[3]
        if name is None:
            return {f'{block}.norm.weight': value}
        if name == 'in_proj.weight':
            if len(value) % 2:
                raise CheckpointError(f'{key} has shape {tuple(value.shape)}; an even number of rows is expected')
            inner, gate = value.chunk(2)
            return {f'{block}.mixer.in_proj.weight': inner, f'{block}.mixer.gate_proj.weight': gate}
        if name == 'out_proj.weight':
            return {f'{block}.mixer.out_proj.weight': value}
        if name in _OF_DIRECTION:
            direction, ours = _OF_DIRECTION[name]
            return {f'{block}.mixer.{direction}.{ours}': value}
        if name in _OF_SCAN:
            direction, ours = _OF_SCAN[name]
            return {f'{block}.mixer.{direction}.scan.{ours}': value[None]}
    raise CheckpointError(f'{key} is not a key of a published Vim file without rotary embeddings')


def _unwrap(weights: Mapping) -> Mapping:
    held = next((name for name in WRAPPERS if isinstance(weights.get(name), Mapping)), None)
    weights = _strip(weights if held is None else weights[held], 'module.')
    inside = {key: value for key, value in weights.items() if key.startswith('backbone.')}
    return _strip(inside, 'backbone.') if inside else weights


def _is_output(key: str) -> bool:
    return bool(_OUTPUTS.match(key)) or key.startswith('final_norm.')


def _beyond(key: str, last: int) -> bool:
    """Whether a key belongs to a block beyond the last one in use."""
    match = re.match(r'blocks\.(\d+)\.', key)
    return bool(match) and int(match[1]) > last
