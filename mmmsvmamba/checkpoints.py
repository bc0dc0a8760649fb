"""Published weights -> our state dicts: pure functions, and the check that what is loaded fits.

The published names live here and nowhere else. Both MSVMamba families keep the S6 parameters of the full and the half
resolution stacked in one tensor, in opposite order.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from .loading import CheckpointError

__all__ = ['CheckpointError', 'convert_official', 'fit_backbone_weights', 'in_model_form', 'recognise_family']

TARGETS = ('backbone', 'classifier', 'detector', 'segmentor')
#: Family -> index of the full-resolution parameters in the stacked tensors, and the wrapper that holds the reported
#: weights.
FAMILIES = {'v1': (1, 'model'), 'v3': (0, 'model_ema')}
WRAPPERS = ('state_dict', 'model', 'model_ema')

_STEM = {
    'v1': {'0': 'conv', '2': 'norm'},
    'v3': {'0': 'conv1', '2': 'norm1', '5': 'conv2', '7': 'norm2'},
}
#: Names of early releases -> the names that followed.
_OLD_NAMES = (
    (r'^patch_embed\.proj\.', 'patch_embed.0.'),
    (r'^patch_embed\.norm\.', 'patch_embed.2.'),
    (r'^(layers\.\d+\.blocks\.\d+)\.ln_1\.', r'\1.norm.'),
    (r'^(layers\.\d+\.blocks\.\d+)\.self_attention\.', r'\1.op.'),
    (r'^(norm|head)\.', r'classifier.\1.'),
)
_STACKED = {
    'op.x_proj_weight': 'x_proj_weight',
    'op.dt_projs_weight': 'dt_weight',
    'op.dt_projs_bias': 'dt_bias',
    'op.A_logs': 'A_log',
    'op.Ds': 'D',
}
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
}
_DOWNSAMPLE = {'norm': 'norm', 'reduction': 'reduction', '1': 'conv', '3': 'norm'}
#: 1×1 convolutions of the published files that are linear layers here.
_LINEAR = ('op.in_proj.', 'op.out_proj.', 'convFFN.linear1.', 'convFFN.linear2.')


def convert_official(state_dict: Mapping, target: str = 'backbone', wrapper: str | None = None) -> dict[str, Tensor]:
    """Converts a published MSVMamba state dict to the names and shapes of this package.

    Args:
        state_dict: A published state dict, or the dict around it ('model', 'model_ema', 'state_dict'); keys may carry
            `module.` and `backbone.` prefixes, and old or new names.
        target: 'backbone' (the registered backbone: classifier dropped, output norms taken where they are there),
            'classifier' (mmpretrain's ImageClassifier: `backbone.`, `head.fc.`, the classifier's norm is that of the
            last stage), 'detector' or 'segmentor' (`backbone.*` is converted, all else passed through).
        wrapper: Which weights of the dict around it to take; by default 'model' for the arXiv family, 'model_ema' for
            the NeurIPS family.

    Returns:
        A new state dict; tensors are views of the given ones.

    Raises:
        CheckpointError: The keys are not those of a published MSVMamba file.
        ValueError: An unknown target.
    """
    if target not in TARGETS:
        raise ValueError(f'target must be one of {", ".join(TARGETS)}, got {target!r}')
    weights = _strip(_unwrap(state_dict, wrapper), 'module.')
    rest = {}
    if target in ('detector', 'segmentor'):
        rest = {key: value for key, value in weights.items() if not key.startswith('backbone.')}
    if any(key.startswith('backbone.') for key in weights):
        weights = _strip({key: value for key, value in weights.items() if key.startswith('backbone.')}, 'backbone.')
    elif target in ('detector', 'segmentor'):
        raise CheckpointError(f'no key starts with "backbone.", so this is no {target}; it has {_some(weights)}')
    weights = _rename_old(weights)
    family = recognise_family(weights)

    converted, head = {}, {}
    for key, value in weights.items():
        if key.startswith('classifier.head.'):
            head['head.fc.' + key.removeprefix('classifier.head.')] = value
        elif key.startswith('classifier.norm.'):
            if target == 'classifier':
                converted['norm3.' + key.removeprefix('classifier.norm.')] = value
        elif not (target == 'classifier' and key.startswith('outnorm')):
            converted.update(_convert_entry(key, value, weights, family))
    if target == 'backbone':
        return converted
    if target == 'classifier' and not head:
        raise CheckpointError('the file has no classifier (classifier.head.*); convert it with target="backbone"')
    extra = head if target == 'classifier' else rest
    return {**{f'backbone.{key}': value for key, value in converted.items()}, **extra}


def recognise_family(weights: Mapping) -> str:
    """Names the family of a published state dict without prefixes: 'v1' (arXiv) or 'v3' (NeurIPS).

    Raises:
        CheckpointError: It is neither.
    """
    ours = any(key.endswith('.op.conv2d_b1.weight') for key in weights)
    if ours and 'patch_embed.7.weight' in weights:
        return 'v3'
    if ours and 'patch_embed.2.weight' in weights:
        return 'v1'
    raise CheckpointError(f'these are not the weights of a published MSVMamba model; the file has {_some(weights)}')


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
    weights = _rename_old(_strip(_unwrap(checkpoint), 'module.'))
    head = {key: key.replace('classifier.head.', 'head.fc.') for key in weights if key.startswith('classifier.head.')}
    return {'state_dict': {head.get(key, f'backbone.{key}'): value for key, value in weights.items()}}


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
    given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    if not prefix:
        given = _strip(_unwrap(given), 'module.')
        if any(key.startswith('backbone.') for key in given):
            given = _strip({key: value for key, value in given.items() if key.startswith('backbone.')}, 'backbone.')
    own = module.state_dict()
    last = module.out_indices[-1]
    if any(key.startswith(('patch_embed.', 'layers.')) for key in given):
        published = _rename_old(given)
        given = convert_official(published)
        _log(f'converted published {recognise_family(published)} weights for {type(module).__name__}')
        if any(key.startswith('classifier.') for key in published):
            _log('dropped the classifier')
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
        raise CheckpointError(_misfit(module, prefix, missing, unexpected, misshaped, bool(given)))
    if fresh:
        _log(f'the file has no {_stages(fresh)}: left at initialisation')
    if unused:
        _log(f'not used by out_indices={module.out_indices}: {_some(unused)}')
    for key in [key for key in state_dict if key.startswith(prefix)]:
        del state_dict[key]
    state_dict.update({prefix + key: value for key, value in fitting.items()})
    for key in fresh:
        state_dict[prefix + key] = own[key]


def _is_published(weights: Mapping) -> bool:
    try:
        recognise_family(_rename_old(_strip(weights, 'module.')))
    except CheckpointError:
        return False
    return True


def _convert_entry(key: str, value: Tensor, weights: Mapping, family: str) -> dict[str, Tensor]:
    """One published entry (without prefix) -> one or two of ours."""
    full_index = FAMILIES[family][0]
    if any(part in key for part in _LINEAR) and value.dim() == 4:
        value = value.flatten(1)
    if match := re.fullmatch(r'outnorm(\d)\.(\w+)', key):
        return {f'norm{match[1]}.{match[2]}': value}
    if (match := re.fullmatch(r'patch_embed\.(\d)\.(\w+)', key)) and match[1] in _STEM[family]:
        return {f'stem.{_STEM[family][match[1]]}.{match[2]}': value}
    match = re.fullmatch(r'layers\.(\d)\.downsample\.(\w+)\.(\w+)', key)
    if match and match[2] in _DOWNSAMPLE:
        return {f'stages.{match[1]}.downsample.{_DOWNSAMPLE[match[2]]}.{match[3]}': value}
    if match := re.fullmatch(r'layers\.(\d)\.blocks\.(\d+)\.(.+)', key):
        block, name = f'stages.{match[1]}.blocks.{match[2]}', match[3]
        if name in _STACKED:
            flat = name in ('op.A_logs', 'op.Ds')
            if value.shape[0] % 2 if flat else value.shape[0] != 2:
                raise CheckpointError(
                    f'{key} has shape {tuple(value.shape)}; two sets of parameters are expected in it'
                )
            pair = value.unflatten(0, (2, -1)) if flat else value
            ours = _STACKED[name]
            return {
                f'{block}.mixer.full_res.scan.{ours}': pair[full_index : full_index + 1],
                f'{block}.mixer.half_res.scan.{ours}': pair[1 - full_index : 2 - full_index],
            }
        if name == 'op.in_proj.weight':
            skip = weights.get(key.replace('in_proj.weight', 'Ds'))
            inner = len(value) if skip is None else max(1, skip.numel() // 2)
            if len(value) not in (inner, 2 * inner):
                raise CheckpointError(
                    f'{key} has shape {tuple(value.shape)}; {inner} rows are expected, or twice as many with a gate'
                )
            names = ('in_proj', 'gate_proj')[: len(value) // inner]
            return {f'{block}.mixer.{name}.weight': part for name, part in zip(names, value.split(inner), strict=True)}
        owner, _, leaf = name.rpartition('.')
        if owner in _IN_BLOCK:
            return {f'{block}.{_IN_BLOCK[owner]}.{leaf}': value}
    raise CheckpointError(f'{key} is not a key of a published {family} MSVMamba file')


def _unwrap(state_dict: Mapping, wrapper: str | None = None) -> Mapping:
    held = [name for name in WRAPPERS if isinstance(state_dict.get(name), Mapping)]
    if wrapper is not None:
        if wrapper not in held:
            raise CheckpointError(f'the file has no {wrapper!r}; it has {_some(state_dict)}')
        return state_dict[wrapper]
    if not held:
        return state_dict
    name = held[0]
    if 'model_ema' in held and 'model' in held:
        name = FAMILIES[recognise_family(_rename_old(_strip(_strip(state_dict['model'], 'module.'), 'backbone.')))][1]
        _log(f'the file holds {" and ".join(held)}: took {name!r}, the weights that the authors report')
    return state_dict[name]


def _strip(weights: Mapping, prefix: str) -> dict:
    return {key.removeprefix(prefix): value for key, value in weights.items()}


def _rename_old(weights: Mapping) -> dict:
    renamed = {}
    for key, value in weights.items():
        for pattern, replacement in _OLD_NAMES:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _beyond(key: str, last: int) -> bool:
    """Whether a key belongs to a stage, or a step to a stage, beyond the last one in use."""
    match = re.match(r'stages\.(\d)\.(downsample\.)?', key)
    return bool(match) and (int(match[1]) > last or (int(match[1]) == last and match[2] is not None))


def _misfit(module, prefix, missing, unexpected, misshaped, any_given) -> str:
    name = type(module).__name__
    lines = [f'the weights do not fit this {name}' + (f' (keys under {prefix!r})' if prefix else '') + ':']
    if not any_given:
        lines = [f'the file holds no weights for this {name}' + (f': no key starts with {prefix!r}' if prefix else '')]
    for what, keys in (('missing', missing), ('unexpected', unexpected), ('mis-shaped', misshaped)):
        if keys:
            lines.append(f'  {len(keys)} {what}: {_some(keys)}')
    lines.append('Check that the file belongs to this architecture (arch).')
    return '\n'.join(lines)


def _some(keys: Iterable, most: int = 6) -> str:
    keys = [str(key) for key in keys]
    shown = ', '.join(keys[:most])
    return shown + (f', … ({len(keys)} in all)' if len(keys) > most else '') if keys else 'no keys at all'


def _stages(keys: Iterable[str]) -> str:
    return ', '.join(sorted({key.split('.')[0] for key in keys}))


def _log(message: str) -> None:
    try:
        from mmengine.logging import print_log
    except ImportError:
        logging.getLogger(__name__).info(message)
    else:
        print_log(message, logger='current', level=logging.INFO)
