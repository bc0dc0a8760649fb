"""Chooses which maps the new backbone returns in place of those of the old one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .probe import FeatureMap

NUM_STAGES = 4


@dataclass(frozen=True)
class Outputs:
    """What the new backbone returns.

    Attributes:
        out_indices: Its stages.
        out_strides: Strides that their maps are brought to; None where they stay.
        levels: For each old map the position of the one that takes its place: among the outputs, or, where a feature
            pyramid has to stand between backbone and heads, among its four levels.
        pyramid: Whether one has to: the old backbone had a decoder of its own, whose maps are fine and deep at once.
        why: The reason for strides or a pyramid.
    """

    out_indices: tuple[int, ...]
    out_strides: tuple[int, ...] | None
    levels: tuple[int, ...]
    pyramid: bool = False
    why: str = ''


def choose_outputs(old: Sequence[FeatureMap], dilated: bool, has_neck: bool, classifies: bool) -> Outputs:
    """Chooses stages, and strides where those of the old maps are not theirs.

    Args:
        old: The maps of the old backbone.
        dilated: Whether its last stages keep their resolution by dilated convolutions.
        has_neck: Whether a neck reads its maps; then their number and strides must stay as they are.
        classifies: Whether the model is a classifier, which reads the deepest map whatever its stride.
    """
    if any(m.stride is None for m in old) or (classifies and len(old) == 1):
        return Outputs((NUM_STAGES - 1,), None, (0,) * len(old))
    strides = [m.stride for m in old]
    nearest = [min(max(round(math.log2(stride)) - 2, 0), NUM_STAGES - 1) for stride in strides]
    rising = all(a < b for a, b in zip(strides, strides[1:], strict=False))
    steady = all(a <= b for a, b in zip(strides, strides[1:], strict=False)) and len(old) <= NUM_STAGES
    positions = tuple(range(len(old)))
    if rising and not dilated and len(set(nearest)) == len(old):
        natural = tuple(4 * 2**i for i in nearest)
        moved = None if natural == tuple(strides) else tuple(strides)
        return Outputs(tuple(nearest), moved, positions, why='the old backbone had other strides' if moved else '')
    if steady and (dilated or rising or has_neck):
        # as deep as the old maps were: the last is that of the last stage, whatever its resolution
        stages = [max(stage, i) for i, stage in enumerate(nearest[:-1])] + [NUM_STAGES - 1]
        why = 'the old backbone kept the resolution of its last stages'
        if sorted(set(stages)) != stages:
            # more maps at the coarse end than there are stages
            stages = list(range(NUM_STAGES - len(old), NUM_STAGES))
            why = 'the old backbone went on to coarser maps'
        return Outputs(tuple(stages), tuple(strides), positions, why=why)
    return Outputs(
        tuple(range(NUM_STAGES)),
        None,
        tuple(nearest),
        pyramid=True,
        why='the old backbone merged deep features into fine maps by itself',
    )
