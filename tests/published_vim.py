"""The authors' Vim models as the reference folder describes them, and a plain re-implementation in the published names.

Nothing here is for speed: sequences are flipped as the paper has it, and scanned position by position.
"""

import json
import re
from functools import lru_cache

import torch
import torch.nn.functional as F
from published import REFERENCE, random_weights
from torch import Tensor

#: Our name of an architecture -> its name in the folder.
MODELS = {
    'tiny': 'vim_tiny',
    'small': 'vim_small',
    'base': 'vim_base',
    'tiny-stride8': 'vim_tiny_stride8',
    'small-stride8': 'vim_small_stride8',
}


def shapes(arch: str, depth: int = 24) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a published classification file, or of one with fewer blocks."""
    manifest = json.loads((REFERENCE / 'manifests' / f'{MODELS[arch]}_cls.json').read_text())
    place = {key: re.match(r'layers\.(\d+)\.', key) for key in manifest}
    return {key: tuple(shape) for key, (shape, _) in manifest.items() if not place[key] or int(place[key][1]) < depth}


def counts(arch: str) -> int:
    """Parameters of the classifier."""
    return json.loads((REFERENCE / 'manifests' / 'vim_counts.json').read_text())[MODELS[arch]]['params_cls']


def weights(arch: str = 'tiny', depth: int = 24, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the published names."""
    return random_weights().make_state_dict(shapes(arch, depth), seed)


@lru_cache
def golden() -> dict:
    """Seed of the tiny model's weights; input, final features and logits of an image."""
    return torch.load(REFERENCE / 'golden' / 'vim_tiny.pt', weights_only=True)


def forward(image: Tensor, weights: dict[str, Tensor], stride: int = 16) -> dict[str, list[Tensor]]:
    """The model with a class token in the middle, for images that patches cover exactly, in the dtype given.

    Returns:
        'stream': behind every block, 'mixer': what every block adds, both (B, L, C) with the class token;
        'features': the normalised class token, (B, C), alone in its list.
    """
    x = F.conv2d(image, weights['patch_embed.proj.weight'], weights['patch_embed.proj.bias'], stride=stride)
    rows, columns = x.shape[2:]
    x = x.flatten(2).mT
    middle = rows * columns // 2
    x = torch.cat([x[:, :middle], weights['cls_token'].expand(len(x), -1, -1), x[:, middle:]], dim=1)
    x = x + positions(weights['pos_embed'], rows, columns)
    stream, added = [], []
    for i in range(1 + max(int(key.split('.')[1]) for key in weights if key.startswith('layers.'))):
        own = {
            key.removeprefix(f'layers.{i}.'): value for key, value in weights.items() if key.startswith(f'layers.{i}.')
        }
        added.append(mixer(rms_norm(x, own['norm.weight']), own))
        x = x + added[-1]
        stream.append(x)
    return dict(stream=stream, mixer=added, features=[rms_norm(x, weights['norm_f.weight'])[:, middle]])


def positions(stored: Tensor, rows: int, columns: int) -> Tensor:
    """Position embeddings of a grid: bicubic, the middle entry is the class token's."""
    side = int((stored.shape[1] - 1) ** 0.5)
    if (rows, columns) == (side, side):
        return stored
    old, new = side**2 // 2, rows * columns // 2
    grid = torch.cat([stored[:, :old], stored[:, old + 1 :]], dim=1).mT.reshape(1, -1, side, side)
    grid = F.interpolate(grid, size=(rows, columns), mode='bicubic', align_corners=False).flatten(2).mT
    return torch.cat([grid[:, :new], stored[:, old : old + 1], grid[:, new:]], dim=1)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def mixer(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """(B, L, C) to (B, L, C); keys from `mixer.` on. The backward direction flips input and gate, and flips back."""
    xz = x @ weights['mixer.in_proj.weight'].mT
    forth = direction(xz, weights, '', 'A_log')
    back = direction(xz.flip(1), weights, '_b', 'A_b_log').flip(1)
    return (forth + back) / 2 @ weights['mixer.out_proj.weight'].mT


def direction(xz: Tensor, weights: dict[str, Tensor], suffix: str, decay: str) -> Tensor:
    x, z = xz.chunk(2, dim=-1)
    taps, bias = weights[f'mixer.conv1d{suffix}.weight'][:, 0], weights[f'mixer.conv1d{suffix}.bias']
    convolved = torch.zeros_like(x) + bias
    for t in range(x.shape[1]):
        for k in range(taps.shape[1]):
            if (source := t + k - taps.shape[1] + 1) >= 0:
                convolved[:, t] = convolved[:, t] + x[:, source] * taps[:, k]
    u = convolved * convolved.sigmoid()
    A, D = -weights[f'mixer.{decay}'].exp(), weights[f'mixer.D{suffix}']
    to_step, bias = weights[f'mixer.dt_proj{suffix}.weight'], weights[f'mixer.dt_proj{suffix}.bias']
    low_rank, B, C = (u @ weights[f'mixer.x_proj{suffix}.weight'].mT).split(
        [to_step.shape[1], A.shape[1], A.shape[1]], dim=-1
    )
    step = F.softplus(low_rank @ to_step.mT + bias)
    h, ys = u.new_zeros(len(u), *A.shape), []
    for t in range(u.shape[1]):
        h = torch.exp(step[:, t, :, None] * A) * h + (step[:, t] * u[:, t])[..., None] * B[:, t, None]
        ys.append((h * C[:, t, None]).sum(-1) + D * u[:, t])
    return torch.stack(ys, dim=1) * z * z.sigmoid()
