"""The check that what a Vim is given to load fits it, with position embeddings brought to its grid."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor, nn

from mmmsvmamba.loading import CheckpointError

from .fitting import in_our_names, settle, weights_for
from .report import log


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
    given, family = in_our_names(module, weights_for(state_dict, prefix))
    if 'pos_embed' in given:
        given['pos_embed'] = _fit_positions(module, given)
    last = module.out_indices[-1]
    settle(
        module,
        state_dict,
        prefix,
        given,
        spare=lambda key: _is_output(key) or key.startswith('final_norm.') or _beyond(key, last),
        optional=_is_output,
        unused=f'not used by out_type={module.out_type!r}, out_indices={module.out_indices}',
        family=family,
    )


def _fit_positions(module: nn.Module, given: Mapping) -> Tensor:
    """Position embeddings of a file, interpolated to the grid of the model."""
    from mmmsvmamba.layers.class_tokens import resize_positions  # needs mmcv, which the conversion does without

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
        log(f'interpolated position embeddings from {side} × {side} patches to {module.grid[0]} × {module.grid[1]}')
        return resize_positions(positions, (side, side), module.grid, layout)
    return positions


def _is_output(key: str) -> bool:
    return bool(re.match(r'(norm\d+|pyramid)\.', key))


def _beyond(key: str, last: int) -> bool:
    """Whether a key belongs to a block beyond the last one in use."""
    match = re.match(r'blocks\.(\d+)\.', key)
    return bool(match) and int(match[1]) > last
