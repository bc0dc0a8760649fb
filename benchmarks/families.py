"""Inference of every architecture of every family on one image of 224×224, as a classifier's trunk.

The yardstick is mmpretrain's ConvNeXt-T: how fast convolutions of the size of the tiny models are on the same machine.
"""

from __future__ import annotations

import torch
from counts import counts
from registry import Contender, case
from torch import nn

from mmmsvmamba import MSVMamba, Vim, VMamba

FAMILIES = (MSVMamba, VMamba, Vim)
YARDSTICK = 'ConvNeXt tiny'
SIDE = 224


@case(f'families/forward/{SIDE}', targets={})
def build(device: torch.device) -> list[Contender]:
    from mmpretrain.models.backbones import ConvNeXt  # not above mmmsvmamba, which makes it importable everywhere

    torch.manual_seed(0)
    image = torch.randn(1, 3, SIDE, SIDE, device=device)

    def contender(name: str, model: nn.Module) -> Contender:
        about = counts(model, SIDE)
        model.to(device).eval()

        @torch.inference_mode()
        def run():
            return model(image)

        return Contender(name, run, ours=name != YARDSTICK, images=1, about=about)

    ours = [
        contender(f'{family.__name__} {arch}', family(arch, **family.classifier_options))
        for family in FAMILIES
        for arch in family.arch_settings
    ]
    return [*ours, contender(YARDSTICK, ConvNeXt('tiny'))]
