"""The check that what a backbone is given to load fits it, whichever path loads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from mmmsvmamba.loading import CheckpointError

from .convert import convert_official
from .families import FAMILIES, recognise_family
from .report import log, misfit, some
from .wrapping import below, rename_old, strip, unwrap


def fit_backbone_weights(
    module: nn.Module, state_dict: dict, prefix: str, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
) -> None:
    """Load-state-dict pre-hook of the hierarchical backbones: converts published weights in place and stops at anything
    that does not fit.

    Runs on every path that loads weights. Only expected differences pass, and are logged: output norms that the file
    lacks or the backbone does not have, stages beyond the last one in use, and the classifier. With out_indices=(3,),
    as classifiers have it, a published classifier's norm becomes that of the output.

    Raises:
        CheckpointError: Names the missing, unexpected and mis-shaped keys.
    """
    given = weights_for(state_dict, prefix)
    converted, family = in_our_names(module, given)
    if family is not None and module.out_indices == (3,):
        # a classifier's backbone: its only output norm is the published classifier's
        norm = below(rename_old(given), 'classifier.norm.')
        converted = {**{f'norm3.{key}': value for key, value in norm.items()}, **converted}
    last = module.out_indices[-1]
    settle(
        module,
        state_dict,
        prefix,
        converted,
        spare=lambda key: bool(re.match(r'norm\d\.', key)) or _beyond(key, last),
        optional=lambda key: bool(re.match(r'norm\d\.', key)),
        unused=f'not used by out_indices={module.out_indices}',
        family=family,
    )


def weights_for(state_dict: Mapping, prefix: str) -> dict[str, Tensor]:
    """The entries of a state dict that are meant for a module, without what files put around and before them.

    Args:
        state_dict: What is loaded.
        prefix: Name of the module in the model, with a dot. Where it is empty the module is loaded by itself, perhaps
            from the file of a whole model.
    """
    given = below(state_dict, prefix)
    if not prefix:
        given = strip(unwrap(given), 'module.')
        if any(key.startswith('backbone.') for key in given):
            given = below(given, 'backbone.')
    return given


def in_our_names(module: nn.Module, given: Mapping) -> tuple[dict[str, Tensor], str | None]:
    """Converts published weights, says so, and names their family; other weights pass unchanged, without family."""
    if not any(key.startswith(('patch_embed.0', 'patch_embed.proj', 'layers.')) for key in given):
        return dict(given), None
    published = rename_old(given)
    family = recognise_family(published)
    converted = convert_official(published)
    log(f'converted published {family} weights for {type(module).__name__}')
    if any(key.startswith(('classifier.', 'head.')) for key in published):
        log('dropped the classifier')
    return converted, family


def settle(
    module: nn.Module,
    state_dict: dict,
    prefix: str,
    given: Mapping[str, Tensor],
    spare: Callable[[str], bool],
    optional: Callable[[str], bool],
    unused: str,
    family: str | None,
) -> None:
    """Puts weights that fit a module into a state dict, in the place of what was there for it.

    Args:
        module: The one that loads them.
        state_dict: What is loaded; changed in place.
        prefix: Name of the module in the model, with a dot, or empty.
        given: The weights, in our names.
        spare: Whether the model may lack a key of the file.
        optional: Whether the file may lack a key of the model, which then keeps its value.
        unused: What to log of the former, before their names.
        family: Of published weights, which one.

    Raises:
        CheckpointError: Names the missing, unexpected and mis-shaped keys; the state dict is as it was.
    """
    own = module.state_dict()
    left = [key for key in given if key not in own and spare(key)]
    fresh = [key for key in own if key not in given and optional(key)]
    fitting = {key: value for key, value in given.items() if key not in left}
    missing = [key for key in own if key not in fitting and key not in fresh]
    unexpected = [key for key in fitting if key not in own]
    misshaped = [
        f'{key} {tuple(value.shape)} (the model has {tuple(own[key].shape)})'
        for key, value in fitting.items()
        if key in own and value.shape != own[key].shape
    ]
    if missing or unexpected or misshaped:
        hint = _other_class(module, given, family)
        raise CheckpointError(misfit(module, prefix, missing, unexpected, misshaped, bool(given), hint))
    if fresh:
        log(f'the file has no {_parts(fresh)}: left at initialisation')
    if left:
        log(f'{unused}: {some(left)}')
    for key in [key for key in state_dict if key.startswith(prefix)]:
        del state_dict[key]
    state_dict.update({prefix + key: value for key, value in fitting.items()})
    for key in fresh:
        state_dict[prefix + key] = own[key]


def _other_class(module: nn.Module, given: Iterable[str], family: str | None) -> str:
    """What to say of weights of another class of backbone; nothing of those of this one."""
    if family is not None:
        backbone = FAMILIES[family].backbone
        other = backbone != type(module).__name__
        return f"These are weights of {backbone}: load them with type='{backbone}'." if other else ''
    # of our own names, those that no backbone of the other kind has
    kinds = {key.split('.')[0] for key in given} & {'stages', 'blocks'}
    own = {name.split('.')[0] for name, _ in module.named_children()} & {'stages', 'blocks'}
    if kinds and own and not kinds & own:
        return f'These are weights of {"MSVMamba or VMamba" if "stages" in kinds else "Vim"}: set type accordingly.'
    return ''


def _beyond(key: str, last: int) -> bool:
    """Whether a key belongs to a stage, or a step to a stage, beyond the last one in use."""
    match = re.match(r'stages\.(\d)\.(downsample\.)?', key)
    return bool(match) and (int(match[1]) > last or (int(match[1]) == last and match[2] is not None))


def _parts(keys: Iterable[str]) -> str:
    return ', '.join(sorted({key.split('.')[0] for key in keys}))
