"""What a benchmark case is, and the list of all cases, of two kinds.

A comparison is a function that builds its contenders on a device; `run.py` lets them take turns in one process:

    @case('scan/forward/L784', targets={'naive': 5.0})
    def build(device):
        return [Contender('selective_scan', lambda: ..., ours=True), Contender('naive', lambda: ...)]

A workload is a function that builds one piece of work; `tasks.py` measures its time and memory in a process of its own:

    @workload('detection/predict/800x1280/batch1')
    def build(device):
        return Work(lambda: ..., images=1, pixels=800 * 1280)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Contender:
    """One implementation in a case.

    Args:
        name: In the results.
        run: The work to be timed.
        ours: Whether it is compared with the contenders that are not.
        work: What its time is divided by for that: GFLOPs, where contenders do not do the same.
        images: How many it takes in a turn, if it takes any.
        about: What else the results are to say of it, such as parameters.
    """

    name: str
    run: Callable[[], object]
    ours: bool = False
    work: float = 1.0
    images: int | None = None
    about: Mapping[str, float] = field(default_factory=dict)


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


@dataclass(frozen=True)
class Work:
    """A piece of work of which time and memory are measured.

    Args:
        run: The work. What it returns is dropped at once.
        images: How many images it takes.
        pixels: Of all its images together.
        about: What else the results are to say of it, such as parameters.
    """

    run: Callable[[], object]
    images: int
    pixels: int
    about: Mapping[str, float] = field(default_factory=dict)


#: Makes a piece of work on a device. It travels to another process: a function of a module, or a partial of one.
WorkBuilder = Callable[[torch.device], Work]

WORKLOADS: dict[str, WorkBuilder] = {}


def workload(name: str) -> Callable[[WorkBuilder], WorkBuilder]:
    """Registers the function that builds a piece of work, under a name like that of a case."""

    def register(build: WorkBuilder) -> WorkBuilder:
        if name in WORKLOADS:
            raise ValueError(f'there are two workloads named {name!r}')
        WORKLOADS[name] = build
        return build

    return register
