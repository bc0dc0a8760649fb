"""Names and shapes of published MSVMamba and VMamba weights -> those of the hierarchical backbones."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mmmsvmamba.loading import CheckpointError

from .families import FAMILIES, Family

_STACKED = {
    'op.x_proj_weight': 'x_proj_weight',
    'op.dt_projs_weight': 'dt_weight',
    'op.dt_projs_bias': 'dt_bias',
    'op.A_logs': 'A_log',
    'op.Ds': 'D',
}
#: Of these, the sets are joined in the first dimension instead of having one of their own.
_FLAT = ('op.A_logs', 'op.Ds')
_IN_BLOCK = {
    'norm': 'norm1',
    'norm2': 'norm2',
    'op.out_norm': 'mixer.norm',
    'op.se.fc.0': 'mixer.se.squeeze',
    'op.se.fc.2': 'mixer.se.excite',
    'op.conv2d': 'mixer.full_res.conv',
    'op.conv2d_b1': 'mixer.half_res.conv',
    'op.out_proj': 'mixer.out_proj',
    'convFFN.linear1': 'ffn.linear1',
    'convFFN.linear2': 'ffn.linear2',
    'convFFN.dwc': 'ffn.dwconv',
    'mlp.fc1': 'ffn.linear1',
    'mlp.fc2': 'ffn.linear2',
}
_DOWNSAMPLE = {'norm': 'norm', 'reduction': 'reduction', '1': 'conv', '3': 'norm'}
#: 1×1 convolutions of the published files that are linear layers here.
_LINEAR = ('op.in_proj.', 'op.out_proj.', 'convFFN.linear1.', 'convFFN.linear2.', 'mlp.fc1.', 'mlp.fc2.')


def convert_hierarchical(
    weights: Mapping, family: str, classifies: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Converts a published MSVMamba or VMamba state dict to the names and shapes of this package.

    Args:
        weights: A published state dict; keys without prefixes, as late releases have them.
        family: A key of `FAMILIES`.
        classifies: Whether the last stage gets the norm of the classifier; otherwise that is dropped.

    Returns:
        The backbone, and the classifier as `head.fc.`.

    Raises:
        CheckpointError: A key or a shape that is not one of the family.
    """
    converted, head = {}, {}
    for key, value in weights.items():
        if key.startswith('classifier.head.'):
            head['head.fc.' + key.removeprefix('classifier.head.')] = value
        elif key.startswith('classifier.norm.'):
            if classifies:
                converted['norm3.' + key.removeprefix('classifier.norm.')] = value
        elif not (classifies and key.startswith('outnorm')):
            converted.update(_convert_entry(key, value, weights, family))
    return converted, head


def _convert_entry(key: str, value: Tensor, weights: Mapping, family: str) -> dict[str, Tensor]:
    """One published entry -> one or two of ours; `weights` are all of them, for shapes that depend on one another."""
    known = FAMILIES[family]
    if any(part in key for part in _LINEAR) and value.dim() == 4:
        value = value.flatten(1)
    if match := re.fullmatch(r'outnorm(\d)\.(\w+)', key):
        return {f'norm{match[1]}.{match[2]}': value}
    if (match := re.fullmatch(r'patch_embed\.(\d)\.(\w+)', key)) and match[1] in known.stem:
        return {f'stem.{known.stem[match[1]]}.{match[2]}': value}
    match = re.fullmatch(r'layers\.(\d)\.downsample\.(\w+)\.(\w+)', key)
    if match and match[2] in _DOWNSAMPLE:
        return {f'stages.{match[1]}.downsample.{_DOWNSAMPLE[match[2]]}.{match[3]}': value}
    if match := re.fullmatch(r'layers\.(\d)\.blocks\.(\d+)\.(.+)', key):
        block, name = f'stages.{match[1]}.blocks.{match[2]}', match[3]
        if name in _STACKED:
            parts = _unstack(key, value, name in _FLAT, known)
            return {f'{block}.mixer.{branch}.scan.{_STACKED[name]}': part for branch, part in parts.items()}
        if name == 'op.in_proj.weight':
            parts = _split_gate(key, value, weights, known)
            return {f'{block}.mixer.{ours}.weight': part for ours, part in parts.items()}
        owner, _, leaf = name.rpartition('.')
        if owner in _IN_BLOCK:
            return {f'{block}.{_IN_BLOCK[owner]}.{leaf}': value}
    raise CheckpointError(f'{key} is not a key of a published {family} {known.backbone} file')


def _unstack(key: str, value: Tensor, flat: bool, family: Family) -> dict[str, Tensor]:
    """The S6 parameters of each branch of a mixer, (sets, …)."""
    if len(value) % family.sets if flat else len(value) != family.sets:
        raise CheckpointError(
            f'{key} has shape {tuple(value.shape)}; {family.sets} sets of parameters are expected in it'
        )
    sets = value.unflatten(0, (family.sets, -1)) if flat else value
    parts = sets.split([count for _, count in family.scans])
    return {branch: part for (branch, _), part in zip(family.scans, parts, strict=True)}


def _split_gate(key: str, value: Tensor, weights: Mapping, family: Family) -> dict[str, Tensor]:
    """The projections to the channels of the scan and, where there is one, of the gate."""
    skip = weights.get(key.replace('in_proj.weight', 'Ds'))
    inner = len(value) if skip is None else max(1, skip.numel() // family.sets)
    if len(value) not in (inner, 2 * inner):
        raise CheckpointError(
            f'{key} has shape {tuple(value.shape)}; {inner} rows are expected, or twice as many with a gate'
        )
    names = ('in_proj', 'gate_proj')[: len(value) // inner]
    return dict(zip(names, value.split(inner), strict=True))
