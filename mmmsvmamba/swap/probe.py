"""What a part of a model makes of an image, found by building it and running it once on zeros."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmmsvmamba.engine.errors import UserError

#: Side of the image. The coarsest maps in use have a stride of 64, and those still have a few pixels. Some classifiers
#: take the size that they were trained with and no other.
SIDE, CLASSIFIER_SIDE = 256, 224


@dataclass(frozen=True)
class FeatureMap:
    """A map of features: its channels, and how many pixels of the image are one of its own; None for a vector."""

    channels: int
    stride: int | None


class ProbeError(UserError):
    """A part of the given config cannot be built or does not run; the message says which and why."""


def backbone_maps(backbone: dict, scope: str, path: str) -> list[FeatureMap]:
    """The maps that a backbone returns in a test.

    Args:
        backbone: Its config.
        scope: Of the registry that builds it.
        path: Of the config, for the message.

    Raises:
        ProbeError: It cannot be built, does not run, or returns something else than maps.
    """
    module = _build(without_weights(backbone), scope, path)
    side = image_side(backbone, type(module), scope)
    channels = backbone.get('in_channels', 3)
    with _failures(path), torch.no_grad():
        outputs = module(torch.zeros(1, channels if isinstance(channels, int) else 3, side, side))
    return [_describe(output, side, path) for output in _flat(outputs)]


def neck_maps(necks: Sequence[dict], maps: Sequence[FeatureMap], scope: str, path: str) -> list[FeatureMap]:
    """The maps that necks, one after the other, make of those of a backbone.

    Raises:
        ProbeError: One cannot be built, does not run, or returns something else than maps.
    """
    features: Any = tuple(torch.zeros(1, m.channels, *(2 * [SIDE // m.stride] if m.stride else [])) for m in maps)
    for neck in necks:
        module = _build(without_weights(neck), scope, path)
        with _failures(path), torch.no_grad():
            features = module(features)
    return [_describe(output, SIDE, path) for output in _flat(features)]


def check_builds(part: dict, scope: str, path: str) -> None:
    """Builds a part that was fitted, to see that it takes the new channels.

    Raises:
        UserError: It does not: groups of a normalisation may not divide them.
    """
    try:
        _build(without_weights(part), scope, path)
    except ProbeError as error:
        raise UserError(f'{path} cannot be fitted to the new backbone: {error.__cause__}. Try another arch.') from error


def default_of(part: dict, option: str, scope: str) -> Any:
    """The default that the class of a part has for an option; None where it has none."""
    kind = part['type']
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    for base in inspect.getmro(kind) if inspect.isclass(kind) else ():
        parameter = inspect.signature(base.__init__).parameters.get(option)
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            return parameter.default
    return None


def without_weights(part: Any) -> Any:
    """A copy of a config that reads no file when it is built."""
    if isinstance(part, dict):
        return {key: without_weights(v) for key, v in part.items() if key not in ('init_cfg', 'pretrained')}
    if isinstance(part, list | tuple):
        return type(part)(without_weights(value) for value in part)
    return copy.copy(part)


def image_side(backbone: dict, kind: type, scope: str) -> int:
    """Side of a square image that a backbone takes: transformers may be built for one size."""
    size = backbone.get('img_size')
    if size is None:
        parameter = inspect.signature(kind.__init__).parameters.get('img_size')
        size = parameter.default if parameter is not None else None
    side = size[0] if isinstance(size, list | tuple) else size
    if isinstance(side, int):
        return side
    return CLASSIFIER_SIDE if scope == 'mmpretrain' else SIDE


def _build(part: dict, scope: str, path: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]), _failures(path), MODELS.switch_scope_and_registry(scope) as registry:
        module = registry.build(ConfigDict(part))
    module.eval()  # by itself: `train` of some backbones returns nothing
    return module


@contextmanager
def _failures(path: str) -> Iterator[None]:
    """Whatever a part of another package raises: it was given by the user and is at fault, not the swap."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise ProbeError(
            f'{path} of the given config does not work by itself: {type(error).__name__}: {error}'
        ) from error


def _flat(outputs: Any) -> Iterator[Any]:
    if isinstance(outputs, list | tuple):
        for output in outputs:
            yield from _flat(output)
    elif outputs is not None:  # what is for training alone
        yield outputs


def _describe(output: Any, side: int, path: str) -> FeatureMap:
    if not isinstance(output, Tensor) or output.dim() not in (2, 3, 4):
        found = f'shape {tuple(output.shape)}' if isinstance(output, Tensor) else type(output).__name__
        raise ProbeError(f'{path} of the given config returns no maps of features (B, C, H, W) but {found}')
    if output.dim() == 4:
        stride = 2 ** round(math.log2(max(1, side / output.shape[2])))
        return FeatureMap(output.shape[1], stride)
    return FeatureMap(output.shape[-1], None)
