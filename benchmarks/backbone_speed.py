"""The forward of whole backbones at 224×224, in time per GFLOP: MSVMamba nano, and mmpretrain's ConvNeXt-T."""

from __future__ import annotations

from functools import partial

import torch
from registry import Contender, case
from torch import nn

from mmmsvmamba import MSVMamba

#: Multiply-adds of one image of 224×224, in 10⁹.
NANO_GFLOPS, CONVNEXT_T_GFLOPS = 0.883, 4.47


def build(device: torch.device, batch: int) -> list[Contender]:
    from mmpretrain.models.backbones import ConvNeXt  # not above mmmsvmamba, which makes it importable everywhere

    torch.manual_seed(0)
    images = torch.randn(batch, 3, 224, 224, device=device)

    def contender(name: str, model: nn.Module, gflops: float, ours: bool) -> Contender:
        model.to(device).eval()

        @torch.inference_mode()
        def run():
            return model(images)

        return Contender(name, run, ours, work=batch * gflops)

    return [
        contender('nano', MSVMamba('nano', out_indices=(3,)), NANO_GFLOPS, ours=True),
        contender('convnext-t', ConvNeXt('tiny'), CONVNEXT_T_GFLOPS, ours=False),
    ]


for _batch in (1, 8):
    # at most twice the time per GFLOP
    case(f'backbone/nano-224/batch{_batch}', targets={'convnext-t': 0.5})(partial(build, batch=_batch))
