"""How a scan walks an H×W map: routes, and groups of routes that share one set of S6 parameters.

A route is index arithmetic, never a permuted copy of the map. Custom-op schemas carry no Python objects, so a `Route`
is its own integer code: bit 0 says column by column, bit 1 says reversed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import lru_cache

import torch
from torch import Tensor


class Route(IntEnum):
    """The order in which a scan visits the pixels of a map."""

    ROW = 0
    COLUMN = 1
    ROW_REVERSED = 2
    COLUMN_REVERSED = 3

    @property
    def by_column(self) -> bool:
        return bool(self & 1)

    @property
    def reversed(self) -> bool:
        return bool(self & 2)

    def pixel_order(self, height: int, width: int) -> Tensor:
        """Returns the row-major pixel index of every step, int64 of shape (height * width,)."""
        return _pixel_order(int(self), height, width).clone()


#: Routes joined end to end into one sequence; the state is carried across the joins.
RouteGroup = tuple[Route, ...]


def encode_groups(groups: Iterable[Iterable[Route]]) -> tuple[list[int], list[int]]:
    """Flattens route groups into the two integer lists of `scan2d`.

    Args:
        groups: One iterable of routes for each set of S6 parameters.

    Returns:
        The codes of all routes, group after group, and the number of routes of each group.
    """
    groups = [tuple(group) for group in groups]
    return [int(route) for group in groups for route in group], [len(group) for group in groups]


def check_groups(routes: Sequence[int], group_sizes: Sequence[int]) -> None:
    """Refuses what `encode_groups` does not make.

    Raises:
        ValueError: A code that is no route, an empty group, or sizes that do not add up.
    """
    for code in routes:
        if code not in (0, 1, 2, 3):
            names = ', '.join(f'{int(route)} ({route.name})' for route in Route)
            raise ValueError(f'unknown route {code}; the routes are {names}')
    if any(size < 1 for size in group_sizes) or sum(group_sizes) != len(routes):
        raise ValueError(
            f'group_sizes {list(group_sizes)} must be positive and add up to the number of routes, '
            f'which is {len(routes)}'
        )


def decode_groups(routes: Sequence[int], group_sizes: Sequence[int]) -> list[RouteGroup]:
    """Inverse of `encode_groups`.

    Raises:
        ValueError: As `check_groups`.
    """
    check_groups(routes, group_sizes)
    groups, start = [], 0
    for size in group_sizes:
        groups.append(tuple(Route(code) for code in routes[start : start + size]))
        start += size
    return groups


@lru_cache(maxsize=64)
def _pixel_order(code: int, height: int, width: int) -> Tensor:
    order = torch.arange(height * width, device='cpu')
    if code & 1:
        order = order.view(height, width).t().reshape(-1)
    if code & 2:
        order = order.flip(0)
    return order
