"""How the Triton kernels are cut into programs: plain heuristics, no Triton in here, so that fake kernels can ask too.

Nothing is tuned at run time: a configuration depends on the number of states, whether dt is projected in the kernel on
its rank too, a split on the number of programs and processors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Config:
    """What a kernel is compiled for.

    Attributes:
        states: States that a lane holds at most for each of its channels; more are scanned in several launches.
        channels: Channels of a program, which is one warp.
        tile: Tokens whose loads are issued together.
        unspilt: Whether the scan itself, not a pass that only finds the ends of chunks, is near its spills.
    """

    states: int
    channels: int
    tile: int
    unspilt: bool = False


#: By number of states; the first that is large enough is taken, else the last, several times.
FORWARD = (Config(states=1, channels=128, tile=5), Config(states=16, channels=64, tile=2))
BACKWARD = (Config(states=1, channels=128, tile=5), Config(states=8, channels=64, tile=1, unspilt=True))
#: Tokens between two kept states, for one state and for more, a multiple of all tiles: 4 N / keep bytes per element are
#: kept. A backward tile shorter than that needs scratch memory and a second recomputation.
KEEP_ONE, KEEP_MANY = 5, 64
#: Up to this rank, and for one state, the kernels project dt themselves. Above, R multiply-adds per element cost more
#: time than the bytes of a projected map; more states are bound by instructions anyway.
LOW_RANK = 6
#: A split aims at this many programs (warps) on a processor, with chunks of at least so many tokens.
WARPS = 8
CHUNK = 256
#: True and False force a split into chunks on and off; None leaves it to the occupancy.
SPLIT: bool | None = None
#: Two bits each in one 32-bit number.
MAX_ROUTES = 15
#: Offsets inside an image from which on they take 64 bits.
WIDE = 2**31


def config(configs: tuple[Config, ...], d_state: int) -> Config:
    """The configuration of `configs` for N states."""
    return next((choice for choice in configs if d_state <= choice.states), configs[-1])


def slices(configs: tuple[Config, ...], d_state: int) -> list[slice]:
    """The states of each launch."""
    size = config(configs, d_state).states
    return [slice(n, min(n + size, d_state)) for n in range(0, d_state, size)]


def keep(d_state: int) -> int:
    """Tokens between two kept states."""
    return KEEP_ONE if d_state == 1 else KEEP_MANY


def blocks(tokens: int, d_state: int) -> int:
    """Blocks of a route of `tokens` tokens, each with one kept state."""
    return -(-tokens // keep(d_state))


def projects(rank: int, d_state: int) -> bool:
    """Whether the kernels project a dt of low rank themselves."""
    return rank <= LOW_RANK and d_state == 1


def chunks(programs: int, blocks: int, keep: int, device: torch.device) -> tuple[int, int]:
    """Cuts a sequence where whole sequences would leave processors idle.

    Args:
        programs: Programs that an uncut sequence would run on.
        blocks: Blocks of the sequence, of `keep` tokens each.

    Returns:
        Blocks of a chunk, number of chunks.
    """
    if SPLIT is False:
        return blocks, 1
    wanted = -(-WARPS * _processors(device) // programs)
    size = max(-(-blocks // wanted), -(-CHUNK // keep))
    if SPLIT:
        size = min(size, max(1, blocks // 3))
    return size, -(-blocks // size)


def _processors(device: torch.device) -> int:
    return 1 if device.type == 'cpu' else torch.cuda.get_device_properties(device).multi_processor_count
