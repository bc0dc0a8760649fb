"""The published models as a plain function of image and state dict, in the authors' names.

Written from the description of the models, without the package: maps are (B, C, H, W), sequences are made by
flattening, the scan is a loop over its steps.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor


def forward(image: Tensor, weights: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
    """The four features, normalised, and the logits."""
    x = _stem(image, weights)
    features = []
    for i in range(4):
        blocks = {int(match[1]) for key in weights if (match := re.match(rf'layers\.{i}\.blocks\.(\d+)\.', key))}
        for j in sorted(blocks):
            x = block(x, _under(weights, f'layers.{i}.blocks.{j}.'))
        features.append(_norm(x, weights, f'outnorm{i}'))
        if i < 3:
            x = _downsample(x, _under(weights, f'layers.{i}.downsample.'))
    pooled = _norm(x, weights, 'classifier.norm').mean((2, 3))
    return features, F.linear(pooled, weights['classifier.head.weight'], weights['classifier.head.bias'])


def block(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """One residual block; the norm of the ConvFFN is before it in the arXiv family, behind it in the NeurIPS family.

    VMamba's first release has no FFN, the later one an MLP behind its norm.
    """
    if 'op.conv2d_b1.weight' not in w:
        x = x + ss2d(_norm(x, w, 'norm'), _under(w, 'op.'))
        return x + _mlp(_norm(x, w, 'norm2'), w) if 'norm2.weight' in w else x
    x = x + ms2d(_norm(x, w, 'norm'), _under(w, 'op.'))
    if _is_v1(w, 'op.'):
        return x + _conv_ffn(_norm(x, w, 'norm2'), w)
    return x + _norm(_conv_ffn(x, w), w, 'norm2')


def ms2d(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """The multi-scale scan: one route over the full-resolution map, three joined ones over the half-resolution map."""
    inner = w['out_norm.weight'].numel()
    v1 = _is_v1(w)
    projected = _pointwise(x, w['in_proj.weight'])
    gate = F.silu(projected[:, inner:]) if projected.shape[1] > inner else 1
    full = F.silu(F.conv2d(projected[:, :inner], w['conv2d.weight'], w['conv2d.bias'], padding=1, groups=inner))
    half = F.conv2d(projected[:, :inner], w['conv2d_b1.weight'], w['conv2d_b1.bias'], padding=3, stride=2, groups=inner)
    half = F.silu(half)
    height, width = half.shape[2:]

    by_row, by_column = half.flatten(2), half.transpose(2, 3).flatten(2)
    joined = torch.cat([by_row.flip(2), by_column, by_column.flip(2)], dim=2)
    y_full = _s6(full.flatten(2), w, 1 if v1 else 0).unflatten(2, full.shape[2:])
    y_half = _s6(joined, w, 0 if v1 else 1)
    if v1:
        y_full, y_half = _norm(y_full, w, 'out_norm'), _norm(y_half, w, 'out_norm')
    first, second, third = y_half.chunk(3, dim=2)
    second, third = (y.unflatten(2, (width, height)).transpose(2, 3) for y in (second, third.flip(2)))
    y_half = first.flip(2).unflatten(2, (height, width)) + second + third
    if v1:
        y = y_full + F.interpolate(y_half, size=x.shape[2:], mode='bilinear', align_corners=False)
    else:
        y = _norm(y_full + F.interpolate(y_half, size=x.shape[2:], mode='nearest'), w, 'out_norm')
    hidden = F.relu(F.linear(y.mean((2, 3)), w['se.fc.0.weight']))
    y = y * F.linear(hidden, w['se.fc.2.weight']).sigmoid()[:, :, None, None]
    return _pointwise(y * gate, w['out_proj.weight'])


def ss2d(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """VMamba's cross-scan: by rows, by columns, and both reversed, each with its own parameters."""
    inner = w['out_norm.weight'].numel()
    projected = _pointwise(x, w['in_proj.weight'])
    gate = F.silu(projected[:, inner:]) if projected.shape[1] > inner else 1
    u = F.silu(F.conv2d(projected[:, :inner], w['conv2d.weight'], w.get('conv2d.bias'), padding=1, groups=inner))
    by_row, by_column = u.flatten(2), u.transpose(2, 3).flatten(2)
    ys = [_s6(sequence, w, i) for i, sequence in enumerate([by_row, by_column, by_row.flip(2), by_column.flip(2)])]
    rows, columns = ys[0] + ys[2].flip(2), ys[1] + ys[3].flip(2)
    y = rows.unflatten(2, u.shape[2:]) + columns.unflatten(2, u.mT.shape[2:]).mT
    return _pointwise(_norm(y, w, 'out_norm') * gate, w['out_proj.weight'])


def _s6(u: Tensor, w: dict[str, Tensor], index: int) -> Tensor:
    """The recurrence over sequences (B, D, L) with the stacked parameters number `index`."""
    rank, channels = w['dt_projs_weight'].shape[2], u.shape[1]
    states = (w['x_proj_weight'].shape[1] - rank) // 2
    low_rank, B, C = torch.einsum('rd,bdl->brl', w['x_proj_weight'][index], u).split([rank, states, states], dim=1)
    delta = torch.einsum('dr,brl->bdl', w['dt_projs_weight'][index], low_rank)
    delta = F.softplus(delta + w['dt_projs_bias'][index][:, None])
    A = -w['A_logs'].view(-1, channels, states)[index].exp()
    D = w['Ds'].view(-1, channels)[index]
    h = u.new_zeros(u.shape[0], channels, states)
    ys = []
    for t in range(u.shape[2]):
        h = torch.exp(delta[:, :, t, None] * A) * h + (delta[:, :, t] * u[:, :, t])[..., None] * B[:, None, :, t]
        ys.append((h * C[:, None, :, t]).sum(2))
    return torch.stack(ys, dim=2) + D[:, None] * u


def _stem(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    if 'patch_embed.7.weight' not in w:
        return _norm(F.conv2d(x, w['patch_embed.0.weight'], w['patch_embed.0.bias'], stride=4), w, 'patch_embed.2')
    x = F.conv2d(x, w['patch_embed.0.weight'], w['patch_embed.0.bias'], stride=2, padding=1)
    x = F.gelu(_norm(x, w, 'patch_embed.2'))
    return _norm(
        F.conv2d(x, w['patch_embed.5.weight'], w['patch_embed.5.bias'], stride=2, padding=1), w, 'patch_embed.7'
    )


def _downsample(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    if '1.weight' in w:
        return _norm(F.conv2d(x, w['1.weight'], w['1.bias'], stride=2, padding=1), w, '3')
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    corners = [x[:, :, 0::2, 0::2], x[:, :, 1::2, 0::2], x[:, :, 0::2, 1::2], x[:, :, 1::2, 1::2]]
    return _pointwise(_norm(torch.cat(corners, dim=1), w, 'norm'), w['reduction.weight'])


def _conv_ffn(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    h = _pointwise(x, w['convFFN.linear1.weight'], w['convFFN.linear1.bias'])
    h = h + F.conv2d(h, w['convFFN.dwc.weight'], w['convFFN.dwc.bias'], padding=1, groups=h.shape[1])
    return _pointwise(F.gelu(h), w['convFFN.linear2.weight'], w['convFFN.linear2.bias'])


def _mlp(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    h = F.gelu(_pointwise(x, w['mlp.fc1.weight'], w['mlp.fc1.bias']))
    return _pointwise(h, w['mlp.fc2.weight'], w['mlp.fc2.bias'])


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(x, weight.reshape(*weight.shape[:2], 1, 1), bias)


def _norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    """LayerNorm over channels."""
    centred = x - x.mean(1, keepdim=True)
    scale = (centred.square().mean(1, keepdim=True) + 1e-5).rsqrt()
    shape = (-1, *[1] * (x.dim() - 2))
    return centred * scale * w[f'{name}.weight'].view(shape) + w[f'{name}.bias'].view(shape)


def _is_v1(w: dict[str, Tensor], prefix: str = '') -> bool:
    """The arXiv family expands the channels of the scan."""
    return w[f'{prefix}out_proj.weight'].shape[1] > w[f'{prefix}out_proj.weight'].shape[0]


def _under(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
