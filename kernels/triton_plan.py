"""How the Triton kernels are cut into programs: plain heuristics, no Triton in here, so that fake kernels can ask too.

Nothing is tuned at run time: a configuration depends on the number of states, whether dt is projected in the kernel on
its rank too, a split on the number of programs and processors.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch


class Config(NamedTuple):
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
#: Channels of a backward program at most where neighbouring ones are apart in memory: 128 would spill.
STRIDED = 64
#: Tokens between two kept states, for one state and for more, a multiple of all tiles: 4 N / keep bytes per element are
#: kept. A backward tile shorter than that needs scratch memory and a second recomputation.
KEEP_ONE, KEEP_MANY = 5, 64
#: Up to this rank, and for one state, the kernels project dt themselves. Above, R multiply-adds per element cost more
#: time than the bytes of a projected map; more states are bound by instructions anyway.
LOW_RANK = 6
#: A split aims at this many programs (warps) on a processor, with chunks of at least so many tokens.
WARPS = 8
CHUNK = 256
#: What a cut sequence costs, for u and dt are read once more to find the ends of chunks: 10 bytes for 6.
SPLIT_COST = 5 / 3
#: A cut sequence runs in at most so many waves.
WAVES = 4
#: True and False force a split into chunks on and off; None leaves it to the occupancy.
SPLIT: bool | None = None
#: Two bits each in one 32-bit number.
MAX_ROUTES = 15
#: Offsets inside an image from which on they take 64 bits.
WIDE = 2**31


def settings() -> tuple:
    """All that plans depend on beside the arguments, for who keeps them."""
    cut = FORWARD, BACKWARD, STRIDED, KEEP_ONE, KEEP_MANY, WIDE, MAX_ROUTES
    return *cut, WARPS, CHUNK, SPLIT_COST, WAVES, SPLIT


def config(configs: tuple[Config, ...], d_state: int, unit: bool = True) -> Config:
    """The configuration of `configs` for N states; `unit` says that neighbouring channels are neighbours in memory."""
    found = next((choice for choice in configs if d_state <= choice.states), configs[-1])
    if configs is BACKWARD and not unit:
        # loads and stores spread channels over lanes in different ways then, and that takes registers
        return found._replace(channels=min(found.channels, STRIDED), unspilt=True)
    return found


@cache
def slices(configs: tuple[Config, ...], d_state: int) -> tuple[slice, ...]:
    """The states of each launch."""
    size = config(configs, d_state).states
    return tuple(slice(n, min(n + size, d_state)) for n in range(0, d_state, size))


def keep(d_state: int) -> int:
    """Tokens between two kept states."""
    return KEEP_ONE if d_state == 1 else KEEP_MANY


def blocks(tokens: int, d_state: int) -> int:
    """Blocks of a route of `tokens` tokens, each with one kept state."""
    return -(-tokens // keep(d_state))


def projects(rank: int, d_state: int) -> bool:
    """Whether the kernels project a dt of low rank themselves."""
    return 0 < rank <= LOW_RANK and d_state == 1


def chunks(programs: int, blocks: int, keep: int, device: torch.device) -> tuple[int, int]:
    """Cuts a sequence where whole sequences would leave processors idle.

    Programs run in waves of as many as are resident, and a wave takes as long as a chunk is, a last wave of few
    programs too: the number of chunks is taken that makes waves · chunk least.

    Args:
        programs: Programs that an uncut sequence would run on.
        blocks: Blocks of the sequence, of `keep` tokens each.

    Returns:
        Blocks of a chunk, number of chunks.
    """
    if SPLIT is False:
        return blocks, 1
    resident = WARPS * _processors(device)
    least = -(-CHUNK // keep)
    if SPLIT:
        size = min(max(-(-blocks * programs // resident), least), max(1, blocks // 3))
        return size, -(-blocks // size)
    best, cost = blocks, float(blocks * -(-programs // resident))
    if programs < resident:
        # just as many programs as fill so many waves
        for count in (resident * waves // programs for waves in range(1, WAVES + 1)):
            size = max(-(-blocks // max(count, 1)), least)
            waves = -(-programs * -(-blocks // size) // resident)
            if size < blocks and SPLIT_COST * waves * size < cost:
                best, cost = size, SPLIT_COST * waves * size
    return best, -(-blocks // best)


@cache
def _processors(device: torch.device) -> int:
    return 1 if device.type == 'cpu' else torch.cuda.get_device_properties(device).multi_processor_count
