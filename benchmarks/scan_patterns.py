"""The scan patterns of the ablations in the models of their configs: inference, and forward with backward.

Every pattern has four sets of S6 parameters, and as many operations but for the norm between the two passes of
cascade-scan. Each is compared with cross-scan, which is `vmamba_n`.
"""

from __future__ import annotations

from functools import partial

import torch
from counts import counts
from mmengine.registry import MODELS
from registry import Contender, case

from mmmsvmamba.engine.options import read_config

ABLATIONS = 'configs/_base_/ablations.py'
#: Name in the results -> name in ABLATIONS.
PATTERNS = {
    'cross': 'vmamba_n',
    'uni': 'scan_uni',
    'bi': 'scan_bi',
    'cascade': 'scan_cascade',
    'cross, no dwconv': 'scan_cross_no_dwconv',
    'uni, no dwconv': 'scan_uni_no_dwconv',
    'bi, no dwconv': 'scan_bi_no_dwconv',
    'cascade, no dwconv': 'scan_cascade_no_dwconv',
}
YARDSTICK = 'cross'
SIDE = 224
BATCH = 2


def build(device: torch.device, train: bool) -> list[Contender]:
    """All patterns on the same images; in training forward and backward of all four maps, without an optimizer."""
    backbones = read_config(ABLATIONS, None).ablations
    torch.manual_seed(0)
    images = torch.randn(BATCH, 3, SIDE, SIDE, device=device)

    def contender(pattern: str, name: str) -> Contender:
        model = MODELS.build(backbones[name])
        about = counts(model, SIDE)
        model.to(device).train(train)

        def step() -> None:
            maps = model(images)
            # not from their means: that of a norm's output is the same whatever goes in, and its gradient is rounding
            torch.autograd.backward(maps, [torch.randn_like(x) for x in maps])
            model.zero_grad()

        @torch.inference_mode()
        def infer():
            return model(images)

        return Contender(pattern, step if train else infer, ours=pattern != YARDSTICK, images=BATCH, about=about)

    return [contender(*names) for names in PATTERNS.items()]


for _train in (False, True):
    case(f'scan-patterns/{"train" if _train else "forward"}/{SIDE}', targets={})(partial(build, train=_train))
