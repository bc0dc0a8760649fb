"""Fits the options of a neck or head that count channels of the maps it reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mmmsvmamba.engine.errors import UserError

from .changes import ConfigEditor
from .probe import FeatureMap, default_of

#: Options of necks and heads that count the channels of the maps they read.
CHANNEL_OPTIONS = ('in_channels', 'in_channel', 'embed_dim', 'embed_dims')
#: Options that count the channels of the first map alone, which a head reads beside its own.
FIRST_OPTIONS = ('c1_in_channels',)


@dataclass(frozen=True)
class Reading:
    """The maps that a part reads before and after the swap.

    Attributes:
        old: Of the old backbone or neck.
        new: Of the new one.
        position: For each old map the position of the one in `new` that takes its place.
        source: Where the maps come from, for messages.
    """

    old: Sequence[FeatureMap]
    new: Sequence[FeatureMap]
    position: Sequence[int]
    source: str

    @property
    def reorders(self) -> bool:
        return list(self.position) != list(range(len(self.new)))

    def channels(self, index: int) -> tuple[int, int]:
        """Old and new channels of an old map."""
        return self.old[index].channels, self.new[self.position[index]].channels

    def both(self, indices: Iterable[int]) -> tuple[list[int], list[int]]:
        """Old and new channels of several old maps."""
        pairs = [self.channels(i) for i in indices]
        return [old for old, _ in pairs], [new for _, new in pairs]


def fit_part(editor: ConfigEditor, path: str, reading: Reading, scope: str) -> None:
    """Fits a neck or head to the maps that it reads.

    Args:
        editor: Of the config.
        path: Of the neck or head in it.
        reading: The maps.
        scope: Of the registry that builds it.

    Raises:
        UserError: Such an option has a value that fits none of the old maps; it is named.
    """
    part = editor.get(path)
    # without convolutions of its own such a head passes on what it reads
    passes_on = part.get('num_convs') == 0 and part.get('channels') == part.get('in_channels')
    index = part.get('in_index', default_of(part, 'in_index', scope))
    for option in CHANNEL_OPTIONS:
        given = part.get(option)
        if given is None and option in ('in_channels', 'in_channel'):
            given = default_of(part, option, scope)
        if not _counts(given):
            continue
        value = _fitted(given, index, reading)
        if value is None:
            if option not in ('in_channels', 'in_channel'):
                continue
            found = ', '.join(str(m.channels) for m in reading.old)
            raise UserError(
                f'{path}.{option} is {_plain(given)}, which are not the channels of maps of the old {reading.source} '
                f'({found}), so that it cannot be told what they should be now. Fit {path} ({part["type"]}) by hand.'
            )
        editor.set(f'{path}.{option}', value, f'channels of the new {reading.source}')
    if passes_on:
        editor.set(f'{path}.channels', editor.get(f'{path}.in_channels'), 'the head has no convolution of its own')
    for option in FIRST_OPTIONS:
        if part.get(option):
            old, new = reading.channels(0)
            if part[option] != old:
                raise UserError(f'{path}.{option} is {part[option]}, but the first map of the old backbone has {old}')
            editor.set(f'{path}.{option}', new, f'channels of the first map of the new {reading.source}')
    if index is not None and reading.reorders:
        many = isinstance(index, list | tuple)
        moved = type(index)(reading.position[i] for i in index) if many else reading.position[index]
        editor.set(f'{path}.in_index', moved, f'where the map of this resolution is in the new {reading.source}')


def _fitted(given: Any, index: Any, reading: Reading) -> Any:
    """The value that takes the place of one that counts channels; None where it fits no old map."""
    everything = range(len(reading.old))
    if isinstance(given, int):
        wanted = [index] if isinstance(index, int) and index in range(-len(everything), len(everything)) else []
        # without an index a part reads the last map, or the only one
        for i in (*wanted, *reversed(everything)):
            old, new = reading.channels(i)
            if old == given:
                return new
        return None
    choices = [index] if isinstance(index, list | tuple) else []
    choices += [everything, reversed(everything)]
    choices += [everything[start:] for start in everything[1:]]
    for indices in choices:
        old, new = reading.both(indices)
        if old == list(given):
            return type(given)(new)
    return None


def _counts(value: Any) -> bool:
    values = value if isinstance(value, list | tuple) else [value]
    return bool(values) and all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
