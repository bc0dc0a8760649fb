"""Names and shapes of published Vim weights -> those of `Vim`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mmmsvmamba.loading import CheckpointError

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


def convert_vim(weights: Mapping) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Converts a published Vim state dict to the names and shapes of this package.

    Args:
        weights: A published state dict; keys without prefixes.

    Returns:
        The backbone, with the norm before the classifier as `final_norm`, and the classifier as `head.fc.`. Tensors are
        views of the given ones, but for two class tokens, which are joined.

    Raises:
        CheckpointError: A key that is not one of a published Vim file.
    """
    converted, head = {}, {}
    doubled = all(key in weights for key in _DOUBLE)
    if doubled:
        converted['cls_token'] = torch.cat([weights[key] for key in _DOUBLE], dim=1)
    for key, value in weights.items():
        if key.startswith('head.'):
            head['head.fc.' + key.removeprefix('head.')] = value
        elif not (doubled and key in _DOUBLE):
            converted.update(_convert_entry(key, value))
    return converted, head


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
