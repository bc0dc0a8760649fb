"""How weights that do not fit, or fit in part, are told to the user."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from torch import nn


def some(keys: Iterable, most: int = 6) -> str:
    """The first of some keys, and how many there are."""
    keys = [str(key) for key in keys]
    shown = ', '.join(keys[:most])
    return shown + (f', … ({len(keys)} in all)' if len(keys) > most else '') if keys else 'no keys at all'


def misfit(
    module: nn.Module,
    prefix: str,
    missing: Sequence[str],
    unexpected: Sequence[str],
    misshaped: Sequence[str],
    any_given: bool,
    hint: str = '',
) -> str:
    """What to say of weights that do not fit a module.

    Args:
        module: The one that was to load them.
        prefix: Its name in the model, with a dot, or empty.
        missing, unexpected, misshaped: The keys in question.
        any_given: Whether the file had any key for it.
        hint: What to do; by default a look at `arch` is advised.
    """
    name = type(module).__name__
    lines = [f'the weights do not fit this {name}' + (f' (keys under {prefix!r})' if prefix else '') + ':']
    if not any_given:
        lines = [f'the file holds no weights for this {name}' + (f': no key starts with {prefix!r}' if prefix else '')]
    for what, keys in (('missing', missing), ('unexpected', unexpected), ('mis-shaped', misshaped)):
        if keys:
            lines.append(f'  {len(keys)} {what}: {some(keys)}')
    lines.append(hint or 'Check that the file belongs to this architecture (arch).')
    return '\n'.join(lines)


def log(message: str) -> None:
    """Logs through mmengine where it is there."""
    try:
        from mmengine.logging import print_log
    except ImportError:
        logging.getLogger(__name__).info(message)
    else:
        print_log(message, logger='current', level=logging.INFO)
