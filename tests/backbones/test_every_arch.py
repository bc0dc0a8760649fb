"""What every architecture of every family does, by one body of tests: a row of a table is covered by being there."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

import mmmsvmamba.backbones as backbones

KINDS = [getattr(backbones, name) for name in backbones.__all__]
ARCHS = [(kind, arch) for kind in KINDS for arch in kind.arch_settings]
every_arch = pytest.mark.parametrize('kind, arch', ARCHS, ids=[f'{kind.__name__} {arch}' for kind, arch in ARCHS])

needs_custom_op = pytest.mark.skipif(
    not hasattr(torch.library, 'custom_op'), reason='before torch 2.4 the scan is no operator that can be traced'
)


def small(kind: type, arch: str, seed: int = 0, **kwargs) -> nn.Module:
    """Few blocks and channels, everything else as the architecture has it; four outputs."""
    torch.manual_seed(seed)
    less = dict(depths=[1, 2, 1, 1], dims=16) if 'depths' in kind.arch_settings[arch] else dict(depth=4, embed_dims=32)
    if 'depth' in less:
        kwargs.setdefault('out_indices', (0, 1, 2, 3))
    return kind(dict(base=arch, **less), **kwargs)


def overlap(model: nn.Module) -> int:
    """Pixels that maps are short of an image because its patches overlap."""
    return getattr(model.arch, 'patch_size', 0) - getattr(model.arch, 'patch_stride', 0)


def image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def loss(outs: tuple[Tensor, ...]) -> Tensor:
    return sum((out * image(*out.shape)).sum() for out in outs)


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(5)  # of stochastic depth
    loss(model(x)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@every_arch
def test_forward_and_backward(kind, arch):
    """Of the whole model: maps at the strides and with the channels that it tells, and a gradient everywhere."""
    torch.manual_seed(0)
    model = kind(arch).train()
    outs = model(image(1, 3, 64, 96))
    channels, strides = model.feature_info.channels(), model.feature_info.reduction()
    assert strides == [4, 8, 16, 32]
    cut = overlap(model)
    assert [tuple(out.shape) for out in outs] == [
        (1, c, -(-(64 - cut) // s), -(-(96 - cut) // s)) for c, s in zip(channels, strides, strict=True)
    ]
    assert all(out.is_contiguous() and out.isfinite().all() for out in outs)
    loss(outs).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, f'{name} has no gradient: distributed training would wait for it'
        assert p.grad.isfinite().all() and p.grad.any(), name


@every_arch
def test_runs_without_memory(kind, arch):
    """Of the whole model, at sizes of detection."""
    with torch.device('meta'):
        model = MODELS.build(dict(type=kind.__name__, arch=arch)).train()
        outs = model(torch.empty(2, 3, 800, 1333))
    assert all(out.is_meta and out.shape[1] == c for out, c in zip(outs, model.feature_info.channels(), strict=True))
    loss = sum(out.sum() for out in outs)
    loss.backward()
    assert all(p.grad.is_meta for p in model.parameters())


@every_arch
def test_odd_sizes(kind, arch):
    """Each map has the size that its stride gives, rounded up or down; down to a single pixel."""
    model = small(kind, arch).eval()
    cut = overlap(model)
    for height, width in [(97, 131), (36, 100), (13, 9), (1, 50)]:
        with torch.no_grad():
            outs = model(image(1, 3, height, width))
        for out, stride in zip(outs, model.feature_info.reduction(), strict=True):
            assert out.isfinite().all()
            for side, given in zip(out.shape[2:], (height, width), strict=True):
                # a backbone of patches pads to whole patches
                assert max(1, (given - cut) // stride) <= side <= -(-max(given, 32) // 32) * 32 // stride


@every_arch
def test_recomputation_changes_no_gradient(kind, arch):
    model, x = small(kind, arch, drop_path_rate=0.5).train(), image(2, 3, 33, 40)
    expected = gradients(model, x)
    model.with_cp = True
    for name, gradient in gradients(model, x).items():
        torch.testing.assert_close(
            gradient, expected[name], atol=1e-6, rtol=1e-5, msg=lambda text, n=name: f'{n}: {text}'
        )


@every_arch
@pytest.mark.parametrize('frozen_stages', [0, 2])
def test_frozen_stages_stay_as_they_are(kind, arch, frozen_stages):
    """Through training mode and a step; what is frozen is told by the layers of `get_layer_depth`."""
    model = small(kind, arch, frozen_stages=frozen_stages)
    model.eval()
    assert model.train() is model
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and len(frozen) < len(list(model.parameters()))
    assert (frozen_stages == 0) == all(model.get_layer_depth(f'backbone.{name}')[0] == 0 for name in frozen)
    assert all(
        name in frozen for name, _ in model.named_parameters() if model.get_layer_depth(f'backbone.{name}')[0] == 0
    )
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    loss(model(image(2, 3, 64, 64))).backward()
    optimizer.step()
    after = model.state_dict()
    assert {name for name in frozen if not torch.equal(after[name], before[name])} == set()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    # not all: with so few channels a ReLU of the channel attention may be off for every image
    assert not moved & frozen and len(moved) > 0.9 * (len(before) - len(frozen))


@every_arch
def test_saved_and_loaded_it_gives_the_same_maps(kind, arch):
    model, other, x = small(kind, arch).eval(), small(kind, arch, seed=1).eval(), image(1, 3, 40, 32)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    assert not torch.equal(model(x)[0], other(x)[0])
    other.load_state_dict(torch.load(file, weights_only=True))
    for same in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for a, b in zip(model(x), same(x), strict=True):
            assert torch.equal(a, b)


@needs_custom_op
@every_arch
def test_exports(kind, arch):
    model, x = small(kind, arch).eval(), image(2, 3, 36, 52)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        for out, expected in zip(program.module()(x), model(x), strict=True):
            torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


@every_arch
def test_layers_for_decaying_rates(kind, arch):
    """Depths start at the stem's 0, leave no layer out and end with the outputs."""
    with torch.device('meta'):
        model = kind(arch)
    depths = {name: model.get_layer_depth(f'backbone.{name}') for name, _ in model.named_parameters()}
    [layers] = {number for _, number in depths.values()}
    assert {depth for depth, _ in depths.values()} == set(range(layers))
    assert model.get_layer_depth('head.fc.weight') == (layers - 1, layers)


@pytest.mark.parametrize('kind', KINDS)
def test_an_unknown_option_or_arch_names_the_known_ones(kind):
    with pytest.raises(TypeError, match=rf'{kind.__name__} has no option .with_pc. .did you mean .with_cp.'):
        kind(next(iter(kind.arch_settings)), with_pc=True)
    with pytest.raises(ValueError, match="unknown arch 'tyny-'.*known are " + ', '.join(kind.arch_settings)):
        kind('tyny-')
    assert 'arch' not in {name for name, p in inspect.signature(kind).parameters.items() if p.default is not p.empty}
