"""Architectures as data: every difference between variants of the hierarchical backbones is a field here."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from mmmsvmamba.kernels import Route, RouteGroup
from mmmsvmamba.layers import DOWNSAMPLES, MERGES, STEMS


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
        full_kernel, half_kernel: Sizes of the depthwise convolutions before the scans.
        conv_bias: Whether these have a bias.
        d_state: States N per channel.
        dt_rank: Rank of the step-size projection; 'auto' is ⌈dim / 16⌉.
        ssm_ratio: Channels of the scan over channels of the block.
        merge: 'norm-each+bilinear' or 'nearest+norm'.
        gate: Whether the mixer's output is gated by a second projection of its input.
        se_reduction: Reduction of the channel attention in the mixer; None for none.
        ffn_ratio: Hidden over outer channels of the ConvFFN; 0 for no FFN.
        ffn_norm: 'pre' or 'post'.
    """

    depths: Sequence[int]
    dims: int | Sequence[int]
    stem: str
    downsample: str
    full_routes: Sequence[Sequence[str]]
    half_routes: Sequence[Sequence[str]]
    full_kernel: int
    half_kernel: int
    conv_bias: bool
    d_state: int
    dt_rank: int | str
    ssm_ratio: float
    merge: str
    gate: bool
    se_reduction: int | None
    ffn_ratio: float
    ffn_norm: str

    def __post_init__(self) -> None:
        dims = self.dims
        if isinstance(dims, int):
            dims = [dims * 2**i for i in range(4)]
        for name, value in (('depths', self.depths), ('dims', dims)):
            if len(value) != 4 or any(not isinstance(n, int) or n < 1 for n in value):
                raise ValueError(f'{name} must be four positive integers, got {value!r}')
        object.__setattr__(self, 'depths', tuple(self.depths))
        object.__setattr__(self, 'dims', tuple(dims))
        choices = {
            'stem': STEMS,
            'downsample': DOWNSAMPLES,
            'merge': MERGES,
            'ffn_norm': ('pre', 'post'),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {", ".join(known)}, got {getattr(self, name)!r}')
        if self.dt_rank != 'auto' and not (isinstance(self.dt_rank, int) and self.dt_rank > 0):
            raise ValueError(f"dt_rank must be a positive integer or 'auto', got {self.dt_rank!r}")
        if self.d_state < 1 or self.ssm_ratio <= 0 or self.ffn_ratio < 0:
            raise ValueError('d_state must be at least 1, ssm_ratio above 0 and ffn_ratio at least 0')
        if not self.full_routes and not self.half_routes:
            raise ValueError('full_routes and half_routes are both empty: there is nothing to scan')
        for name in ('full_kernel', 'half_kernel'):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f'{name} must be odd, got {getattr(self, name)}')
        for name in ('full_routes', 'half_routes'):
            object.__setattr__(self, name, _parse_routes(name, getattr(self, name)))

    def rank(self, dim: int) -> int:
        """dt_rank of a stage with `dim` channels."""
        return math.ceil(dim / 16) if self.dt_rank == 'auto' else self.dt_rank


def resolve_arch(arch: str | Mapping, settings: Mapping[str, Mapping]) -> Arch:
    """Builds the `Arch` that a user names or spells out.

    Args:
        arch: A name in `settings`, or a dict of `Arch` fields; its key `base` names the architecture whose values the
            other fields take.
        settings: The named architectures.

    Raises:
        ValueError: An unknown name, field or value, or missing fields; says which are known.
    """
    if isinstance(arch, str):
        return Arch(**_lookup('arch', arch, settings))
    if not isinstance(arch, Mapping):
        raise ValueError(f'arch must be a name ({", ".join(settings)}) or a dict of fields, got {arch!r}')
    given = dict(arch)
    known = [field.name for field in fields(Arch)]
    values = dict(_lookup('base', given.pop('base'), settings)) if 'base' in given else {}
    for name in given:
        if name not in known:
            raise ValueError(f'unknown field {name!r} in arch{_hint(name, known)}; the fields are {", ".join(known)}')
    values.update(given)
    missing = [name for name in known if name not in values]
    if missing:
        raise ValueError(
            f'arch lacks {", ".join(missing)}; give them, or give base= one of {", ".join(settings)} '
            'to take them from there'
        )
    return Arch(**values)


def _lookup(what: str, name: str, settings: Mapping[str, Mapping]) -> Mapping:
    if name not in settings:
        raise ValueError(f'unknown {what} {name!r}{_hint(str(name), settings)}; known are {", ".join(settings)}')
    return settings[name]


def _hint(name: str, known) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f' (did you mean {close[0]!r}?)' if close else ''


def _parse_routes(field: str, groups: Sequence[Sequence[str]]) -> tuple[RouteGroup, ...]:
    names = {route.name.lower(): route for route in Route}
    parsed = []
    for group in groups:
        if isinstance(group, str) or not group or any(name not in names for name in group):
            raise ValueError(
                f'{field} must be a list of groups, each a list of routes among {", ".join(names)}; got {group!r}'
            )
        parsed.append(tuple(names[name] for name in group))
    return tuple(parsed)
