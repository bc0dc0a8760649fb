"""The forward of whole backbones at 224×224, in time per GFLOP: MSVMamba nano, and mmpretrain's ConvNeXt-T."""

from __future__ import annotations

from functools import partial

import torch
from registry import Contender, case
from torch import nn

from mmmsvmamba import MSVMamba
from mmmsvmamba.analysis import count_flops

IMAGE = (3, 224, 224)


def build(device: torch.device, batch: int) -> list[Contender]:
    from mmpretrain.models.backbones import ConvNeXt  # not above mmmsvmamba, which makes it importable everywhere

    torch.manual_seed(0)
    images = torch.randn(batch, *IMAGE, device=device)

    def contender(name: str, model: nn.Module, ours: bool) -> Contender:
        gflops = count_flops(model, (1, *IMAGE)).total / 1e9
        model.to(device).eval()

        @torch.inference_mode()
        def run():
            return model(images)

        return Contender(name, run, ours, work=batch * gflops)

    return [
        contender('nano', MSVMamba('nano', out_indices=(3,)), ours=True),
        contender('convnext-t', ConvNeXt('tiny'), ours=False),
    ]


for _batch in (1, 8):
    # at most twice the time per GFLOP
    case(f'backbone/nano-224/batch{_batch}', targets={'convnext-t': 0.5})(partial(build, batch=_batch))
