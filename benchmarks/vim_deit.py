"""Batch inference of Vim and of a DeiT of its size, which the Vim paper compares with at high resolution.

DeiT takes part twice: as mmpretrain has it, with torch's fused attention, which keeps no matrix of scores, and with
such a matrix, as attention was written when the paper was. The results say what of the paper's ratios is due to that.

    python benchmarks/run.py --device cuda --cases 'vim-deit/*' --out vim_deit_time_cuda.json
    python benchmarks/tasks.py --device cuda --cases 'growth/*-tiny*' --out vim_deit_cuda.json

The first lets them take turns and is for ratios of times, the second is for memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from counts import counts
from registry import Contender, Work, case, workload
from task_speed import growing
from torch import nn

from mmmsvmamba import Vim

#: The largest is that of the paper.
SIDES = (512, 768, 1248)
#: Images of a batch, by type of device: a turn on a CPU should end in a minute; the matrices fill a GPU of 40 GB.
BATCH = {'cpu': 1, 'cuda': 32}


def vim(side: int) -> nn.Module:
    return Vim('tiny', out_type='cls_token')


def deit(side: int) -> nn.Module:
    """mmpretrain's DeiT-Ti for images of this size, so that no position embedding is interpolated."""
    from mmpretrain.models.backbones import VisionTransformer

    model = VisionTransformer('deit-tiny', img_size=side, patch_size=16, out_type='cls_token')
    nn.init.trunc_normal_(model.pos_embed, std=0.02)
    return model


def deit_with_scores(side: int) -> nn.Module:
    """The same with softmax(q·kᵀ)·v step by step: mmpretrain's own code for a torch without fused attention."""
    from mmpretrain.models.utils.attention import MultiheadAttention, scaled_dot_product_attention_pyimpl

    model = deit(side)
    for module in model.modules():
        if isinstance(module, MultiheadAttention):
            module.scaled_dot_product_attention = scaled_dot_product_attention_pyimpl
    return model


MODELS: dict[str, Callable[[int], nn.Module]] = {
    'vim-tiny': vim,
    'deit-tiny': deit,
    'deit-tiny-scores': deit_with_scores,
}


def infer(device: torch.device, name: str, side: int) -> Work:
    """A batch of square images, from pixels to class tokens."""
    torch.manual_seed(0)
    model = MODELS[name](side)
    about = counts(model, side)
    model.to(device).eval()  # mmpretrain's returns None
    work = growing(model, device, side, train=False, batch=BATCH[device.type])
    return replace(work, about=about)


def build(device: torch.device, side: int) -> list[Contender]:
    contenders = []
    for name in MODELS:
        work = infer(device, name, side)
        contenders.append(Contender(name, work.run, ours=name == 'vim-tiny', images=work.images, about=work.about))
    return contenders


# the contenders of one size follow each other, so that a machine that is busy for a while slows all of them
for _side in SIDES:
    case(f'vim-deit/forward/{_side}', targets={})(partial(build, side=_side))
    for _name in MODELS:
        workload(f'growth/{_name}/forward/{_side}')(partial(infer, name=_name, side=_side))
