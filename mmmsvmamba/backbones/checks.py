"""What all backbones say about options that cannot be and about inputs that are no images."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from torch import Tensor

from .arch import hint


def refuse_unknown(kind: type, signature: type, unknown: Mapping[str, object]) -> None:
    """Stops at options that a backbone does not have.

    Args:
        kind: Class of the backbone.
        signature: The class whose constructor names the options.
        unknown: The options left over.

    Raises:
        TypeError: There are any; lists the known ones.
    """
    if not unknown:
        return
    options = [name for name in inspect.signature(signature).parameters if name != 'unknown']
    name = next(iter(unknown))
    raise TypeError(
        f'{kind.__name__} has no option {name!r}{hint(name, options)}; the options are {", ".join(options)}'
    )


def check_options(drop_path_rate: float, frozen_stages: int, most_frozen: int, with_cp: bool, in_channels: int) -> None:
    """Checks the options that all backbones have.

    Raises:
        ValueError: One is out of range.
    """
    if not isinstance(drop_path_rate, (int, float)) or not 0 <= drop_path_rate < 1:
        raise ValueError(f'drop_path_rate must lie in [0, 1), got {drop_path_rate!r}')
    if not isinstance(frozen_stages, int) or frozen_stages not in range(-1, most_frozen + 1):
        raise ValueError(f'frozen_stages must lie between -1 and {most_frozen}, got {frozen_stages!r}')
    if not isinstance(with_cp, bool):
        raise ValueError(f'with_cp must be True or False, got {with_cp!r}')
    if not isinstance(in_channels, int) or in_channels < 1:
        raise ValueError(f'in_channels must be a positive integer, got {in_channels!r}')


def check_images(x: Tensor, in_channels: int) -> None:
    """Checks the input of a backbone.

    Raises:
        ValueError: It is no batch of images with the right channels.
    """
    if x.dim() != 4 or x.shape[1] != in_channels:
        raise ValueError(f'the input must be (B, {in_channels}, H, W), got shape {tuple(x.shape)}')
    if not x.is_floating_point():
        raise ValueError(
            f'the input must be a floating-point image batch, got {x.dtype}; normalise and convert it first'
        )
    if 0 in x.shape[2:]:
        raise ValueError(f'the input has no pixels: shape {tuple(x.shape)}')
