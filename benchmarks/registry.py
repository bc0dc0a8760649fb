"""What a benchmark case is, and the list of all cases.

A case is a function that builds its contenders on a device:

    @case('scan/forward/L784', targets={'naive': 5.0})
    def build(device):
        return [Contender('selective_scan', lambda: ..., ours=True), Contender('naive', lambda: ...)]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Contender:
    """One implementation in a case.

    Args:
        name: In the results.
        run: The work to be timed.
        ours: Whether it is compared with the contenders that are not.
        work: What its time is divided by for that: GFLOPs, where contenders do not do the same.
    """

    name: str
    run: Callable[[], object]
    ours: bool = False
    work: float = 1.0


@dataclass(frozen=True)
class Case:
    """A comparison.

    Args:
        name: Parts joined by slashes, from the general to the special.
        build: Makes the contenders on a device.
        targets: Contender -> how many times as fast as it each of ours has to be.
    """

    name: str
    build: Callable[[torch.device], list[Contender]]
    targets: Mapping[str, float]


CASES: dict[str, Case] = {}


def case(name: str, targets: Mapping[str, float]) -> Callable:
    """Registers the function that builds a case."""

    def register(build: Callable[[torch.device], list[Contender]]) -> Callable:
        if name in CASES:
            raise ValueError(f'there are two benchmark cases named {name!r}')
        CASES[name] = Case(name, build, targets)
        return build

    return register
