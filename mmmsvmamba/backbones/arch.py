"""Architectures as data: every difference between variants of the hierarchical backbones is a field here."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TypeVar

from mmmsvmamba.kernels import Route, RouteGroup
from mmmsvmamba.layers import DOWNSAMPLES, FFNS, MERGES, SSM_INITS, STEMS

T = TypeVar('T')


@dataclass(frozen=True)
class Arch:
    """Fields of a hierarchical scan backbone.

    Attributes:
        depths: Blocks of each of the four stages.
        dims: Channels of each stage; one integer is doubled from stage to stage.
        stem: 'patch' (4×4 patches) or 'conv' (two strided 3×3 convolutions).
        downsample: 'merging' (2×2 patch merging) or 'conv' (strided 3×3 convolution).
        full_routes: Route groups at full resolution, such as [['row']]; routes are row, column, row_reversed,
            column_reversed.
        half_routes: Route groups at half resolution.
        full_kernel, half_kernel: Sizes of the depthwise convolutions before the scans; None leaves out the one at full
            resolution, and stands for the other where nothing is scanned at half resolution.
        conv_bias: Whether these have a bias.
        d_state: States N per channel.
        dt_rank: Rank of the step-size projection; 'auto' is ⌈dim / 16⌉.
        ssm_ratio: Channels of the scan over channels of the block.
        merge: 'norm-each+bilinear' or 'nearest+norm'.
        gate: Whether the mixer's output is gated by a second projection of its input.
        se_reduction: Reduction of the channel attention in the mixer; None for none.
        ffn_ratio: Hidden over outer channels of the FFN; 0 for no FFN.
        ffn_norm: 'pre' or 'post'.
        ffn: 'conv' (with a depthwise convolution between its layers) or 'mlp'.
        cascade: Whether each row, then each column is scanned by itself; full_routes and half_routes are empty then.
        ssm_init: 'mamba', 'normal' or 'uniform' (`layers.SSM_INITS`).
    """

    depths: Sequence[int]
    dims: int | Sequence[int]
    stem: str
    downsample: str
    full_routes: Sequence[Sequence[str]]
    half_routes: Sequence[Sequence[str]]
    full_kernel: int | None
    half_kernel: int | None
    conv_bias: bool
    d_state: int
    dt_rank: int | str
    ssm_ratio: float
    merge: str
    gate: bool
    se_reduction: int | None
    ffn_ratio: float
    ffn_norm: str
    ffn: str = 'conv'
    cascade: bool = False
    ssm_init: str = 'mamba'

    def __post_init__(self) -> None:
        dims = [self.dims * 2**i for i in range(4)] if is_count(self.dims) else self.dims
        for name, value in (('depths', self.depths), ('dims', dims)):
            if not _is_list(value) or len(value) != 4 or not all(is_count(n) for n in value):
                raise ValueError(f'{name} must be four positive integers, got {value!r}')
            object.__setattr__(self, name, tuple(value))
        for name, known in {
            'stem': tuple(STEMS),
            'downsample': tuple(DOWNSAMPLES),
            'merge': tuple(MERGES),
            'ffn': tuple(FFNS),
            'ffn_norm': ('pre', 'post'),
            'ssm_init': tuple(SSM_INITS),
            'gate': (True, False),
            'conv_bias': (True, False),
            'cascade': (True, False),
        }.items():
            self._require(name, getattr(self, name) in known, f'one of {", ".join(map(str, known))}')
        self._require('dt_rank', self.dt_rank == 'auto' or is_count(self.dt_rank), "a positive integer or 'auto'")
        self._require('d_state', is_count(self.d_state), 'a positive integer')
        inner = [int(self.ssm_ratio * dim) for dim in self.dims] if is_number(self.ssm_ratio) else [0]
        self._require('ssm_ratio', min(inner) > 0, 'a number that leaves the scan at least one channel')
        hidden = [int(self.ffn_ratio * dim) for dim in self.dims] if is_number(self.ffn_ratio) else [-1]
        fits = self.ffn_ratio == 0 or min(hidden) > 0
        self._require('ffn_ratio', fits, '0 for no FFN, or a number that leaves it at least one channel')
        for name in ('full_kernel', 'half_kernel'):
            size = getattr(self, name)
            fits = size is None or (is_count(size) and size % 2 == 1)
            self._require(name, fits, 'a positive odd integer, or None for no convolution')
        fits = self.se_reduction is None or (is_count(self.se_reduction) and self.se_reduction <= min(inner))
        self._require('se_reduction', fits, f'None or an integer from 1 to {min(inner)}, the channels of the scan')
        for name in ('full_routes', 'half_routes'):
            object.__setattr__(self, name, _parse_routes(name, getattr(self, name)))
        if self.half_routes and self.half_kernel is None:
            raise ValueError('half_kernel is None, but half_routes needs the convolution that halves the map')
        if self.cascade and (self.full_routes or self.half_routes):
            raise ValueError('cascade scans rows and columns instead of routes: full_routes and half_routes must be []')
        if not self.full_routes and not self.half_routes and not self.cascade:
            raise ValueError('full_routes and half_routes are both empty: there is nothing to scan')

    def _require(self, name: str, fits: bool, expected: str) -> None:
        if not fits:
            raise ValueError(f'{name} must be {expected}, got {getattr(self, name)!r}')

    def rank(self, dim: int) -> int:
        """dt_rank of a stage with `dim` channels."""
        return math.ceil(dim / 16) if self.dt_rank == 'auto' else self.dt_rank


def resolve_arch(arch: str | Mapping, settings: Mapping[str, Mapping], kind: type[T]) -> T:
    """Builds the architecture that a user names or spells out.

    Args:
        arch: A name in `settings`, or a dict of fields of `kind`; its key `base` names the architecture whose values
            the other fields take.
        settings: The named architectures.
        kind: The dataclass that it becomes, such as `Arch`.

    Raises:
        ValueError: An unknown name, field or value, or missing fields; says which are known.
    """
    if isinstance(arch, str):
        return kind(**_lookup('arch', arch, settings))
    if not isinstance(arch, Mapping):
        raise ValueError(f'arch must be a name ({", ".join(settings)}) or a dict of fields, got {arch!r}')
    given = dict(arch)
    known = [field.name for field in fields(kind)]
    values = dict(_lookup('base', given.pop('base'), settings)) if 'base' in given else {}
    for name in given:
        if name not in known:
            raise ValueError(f'unknown field {name!r} in arch{hint(name, known)}; the fields are {", ".join(known)}')
    values.update(given)
    missing = [field.name for field in fields(kind) if field.name not in values and field.default is MISSING]
    if missing:
        raise ValueError(
            f'arch lacks {", ".join(missing)}; give them, or give base= one of {", ".join(settings)} '
            'to take them from there'
        )
    return kind(**values)


def _lookup(what: str, name: str, settings: Mapping[str, Mapping]) -> Mapping:
    if not isinstance(name, str) or name not in settings:
        raise ValueError(f'unknown {what} {name!r}{hint(str(name), settings)}; known are {", ".join(settings)}')
    return settings[name]


def hint(name: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f' (did you mean {close[0]!r}?)' if close else ''


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _parse_routes(field: str, groups: Sequence[Sequence[str]]) -> tuple[RouteGroup, ...]:
    names = {route.name.lower(): route for route in Route}
    fits = _is_list(groups) and all(
        _is_list(group) and group and all(isinstance(name, str) and name in names for name in group) for group in groups
    )
    if not fits:
        raise ValueError(
            f'{field} must be a list of groups, each a list of routes among {", ".join(names)}; got {groups!r}'
        )
    return tuple(tuple(names[name] for name in group) for group in groups)
