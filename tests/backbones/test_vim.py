"""The Vim backbone: numbers of the authors' code, sizes, outputs, class tokens, options, training."""

import copy
import re

import published
import published_vim
import pytest
import torch
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from mmpretrain.registry import MODELS as PRETRAIN_MODELS
from torch import nn

from mmmsvmamba import Vim
from mmmsvmamba.checkpoints import convert_official

SMALL = dict(base='tiny', embed_dims=32, depth=4, d_state=4, img_size=64)
#: The float32 noise of the authors' code is a third of it.
ATOL = 5e-5
KINDS = [None, 'head', 'middle', 'double']


def small(seed=0, arch=(), **kwargs) -> Vim:
    torch.manual_seed(seed)
    return Vim({**SMALL, **dict(arch)}, **kwargs).eval()


def image(*shape, seed=0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss(outs) -> torch.Tensor:
    return sum((out * image(*out.shape, seed=3)).sum() for out in outs)


# ---- the authors' numbers ----


@published.needs_reference
@torch.no_grad()
def test_features_and_logits_are_those_of_the_authors_code(nan_memory):
    golden = published_vim.golden()
    weights = published_vim.weights('tiny', seed=golden['seed'])
    assert published.random_weights().sha256(weights) == golden['weights_sha256']
    classifier = image_classifier('tiny').to_empty(device='cpu').eval()
    classifier.load_state_dict(convert_official(weights, target='classifier'), strict=True)
    [case] = golden['cases'].values()
    [features] = classifier.extract_feat(case['input'])
    torch.testing.assert_close(features, case['features'], atol=ATOL, rtol=0)
    torch.testing.assert_close(classifier(case['input'], mode='tensor'), case['logits'], atol=ATOL, rtol=0)


def image_classifier(arch) -> nn.Module:
    with torch.device('meta'):
        return PRETRAIN_MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=dict(type='Vim', arch=arch, out_type='cls_token'),
                head=dict(type='LinearClsHead', num_classes=1000, in_channels=Vim.arch_settings[arch]['embed_dims']),
            )
        )


@published.needs_reference
@torch.no_grad()
def test_the_reimplementation_gives_the_recorded_numbers():
    """What other sizes are compared with below is itself checked against the record."""
    golden = published_vim.golden()
    [case] = golden['cases'].values()
    weights = published_vim.weights('tiny', seed=golden['seed'])
    [features] = published_vim.forward(case['input'], weights)['features']
    torch.testing.assert_close(features, case['features'], atol=ATOL, rtol=0)


@published.needs_reference
@pytest.mark.parametrize('arch, size', [('tiny', (48, 80)), ('tiny', (16, 16)), ('tiny-stride8', (32, 40))])
@pytest.mark.parametrize('features', ['block', 'mixer'])
@torch.no_grad()
def test_maps_equal_a_plain_reimplementation(arch, size, features):
    """The stream behind a block, or, as the authors' segmentor, what the block adds to it."""
    weights = published_vim.weights(arch, depth=3, seed=1)
    stride = 8 if arch.endswith('8') else 16
    options = dict(out_indices=(0, 2), out_strides=(stride, stride), features=features)
    model = Vim(dict(base=arch, depth=3), **options).eval()
    model.load_state_dict(weights)
    model.double()
    x = image(2, 3, *size).double()
    expected = published_vim.forward(x, {key: value.double() for key, value in weights.items()}, stride)
    rows, columns = ((side - 16) // stride + 1 for side in size)
    middle = rows * columns // 2
    for out, block in zip(model(x), (0, 2), strict=True):
        tokens = expected['stream' if features == 'block' else 'mixer'][block]
        if features == 'block':
            tokens = published_vim.rms_norm(tokens, getattr(model, f'norm{block}').weight)
        patches = torch.cat([tokens[:, :middle], tokens[:, middle + 1 :]], dim=1)
        torch.testing.assert_close(out.flatten(2).mT, patches, atol=1e-9, rtol=1e-9)


# ---- parameters and keys ----


@pytest.mark.parametrize(
    'arch, count',
    [
        ('tiny', 7_148_008),
        ('small', 25_796_584),
        ('base', 97_598_440),
        ('tiny-stride8', 7_250_344),
        ('small-stride8', 26_001_256),
    ],
)
def test_counts_of_the_published_models(arch, count):
    assert sum(p.numel() for p in image_classifier(arch).parameters()) == count
    if published.REFERENCE.is_dir():
        assert published_vim.counts(arch) == count


@published.needs_reference
@pytest.mark.parametrize('arch', published_vim.MODELS)
def test_published_keys_become_ours(arch):
    with torch.device('meta'):
        given = {key: torch.empty(shape) for key, shape in published_vim.shapes(arch).items()}
        backbone = Vim(arch, out_type='cls_token')
    for target, model in (('classifier', image_classifier(arch)), ('backbone', backbone)):
        converted = convert_official(given, target)
        assert {key: tuple(value.shape) for key, value in converted.items()} == {
            key: tuple(value.shape) for key, value in model.state_dict().items()
        }


# ---- sizes and outputs ----


@pytest.mark.parametrize(
    'size', [(97, 131), (36, 100), (16, 16), (4, 4), (1, 1), (3, 50), (17, 16), (224, 224)], ids=str
)
@pytest.mark.parametrize('stride', [16, 8])
def test_sizes(size, stride):
    with torch.device('meta'):
        outs = Vim(dict(SMALL, patch_stride=stride))(torch.empty(2, 3, *size))
    # patches that cover the image, the last one padded
    grid = [len(range(0, max(side - 16, 0) + stride, stride)) for side in size]
    for out, out_stride in zip(outs, (4, 8, 16, 32), strict=True):
        assert tuple(out.shape) == (2, 32, *(-(-side * stride // out_stride) for side in grid))


@pytest.mark.parametrize('stride, side', [(16, 14), (8, 27)])
def test_grid_of_the_pretraining_size(stride, side):
    with torch.device('meta'):
        model = Vim(f'tiny{"-stride8" if stride == 8 else ""}', out_indices=(0,), out_strides=(stride,))
        assert model.pos_embed.shape == (1, side**2 + 1, 192)
        assert model(torch.empty(1, 3, 224, 224))[0].shape == (1, 192, side, side)


@pytest.mark.parametrize('size', [(1, 1), (20, 9), (33, 40)], ids=str)
@pytest.mark.parametrize('stride', [16, 8])
def test_images_are_zero_padded_at_the_right_and_at_the_bottom(size, stride):
    x = image(2, 3, *size)
    padded = torch.zeros(2, 3, *(16 + max(0, -(-(side - 16) // stride)) * stride for side in size))
    padded[:, :, : size[0], : size[1]] = x
    model = small(arch=dict(patch_stride=stride))
    for out, expected in zip(model(x), model(padded), strict=True):
        assert torch.equal(out, expected)


@pytest.mark.parametrize('out_type', ['pyramid', 'cls_token', 'mean', 'max'])
@pytest.mark.parametrize('kind', KINDS)
def test_every_class_token_and_output(kind, out_type, nan_memory):
    """And every parameter receives a gradient: otherwise distributed training stops with unused parameters."""
    if kind is None and out_type == 'cls_token':
        with pytest.raises(ValueError, match="needs a class token.*cls_token=None; take 'mean'"):
            small(arch=dict(cls_token=kind), out_type=out_type)
        return
    model = small(arch=dict(cls_token=kind), out_type=out_type).train()
    outs = model(image(2, 3, 50, 70))
    assert isinstance(outs, tuple)
    if out_type != 'pyramid':
        assert [tuple(out.shape) for out in outs] == [(2, 32)]
    loss(outs).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert ('cls_token' in model.state_dict()) == (kind is not None)
    assert ('final_norm.weight' in model.state_dict()) == (out_type != 'pyramid')


@pytest.mark.parametrize('options', [dict(), dict(features='mixer'), dict(out_indices=(0, 2), out_strides=(4, 32))])
def test_no_gradient_of_the_pyramid_is_missing_or_zero(options):
    model = small(**options).train()
    loss(model(image(2, 3, 64, 96))).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert any(name.startswith('norm') for name, _ in model.named_parameters()) == ('features' not in options)


@pytest.mark.parametrize('kind', ['head', 'middle', 'double'])
@torch.no_grad()
def test_vectors_are_those_of_the_sequence(kind):
    """Read behind the final norm with a hook; the class tokens stand where the paper's ablation puts them."""
    x, places = image(2, 3, 64, 48), {'head': [0], 'middle': [6], 'double': [0, 13]}[kind]
    outs = {}
    for out_type in ('cls_token', 'mean', 'max'):
        model = small(arch=dict(cls_token=kind), out_type=out_type)
        model.final_norm.register_forward_hook(lambda module, args, result: outs.__setitem__('sequence', result))
        outs[out_type] = model(x)[0]
    patches = outs['sequence'][:, [i for i in range(12 + len(places)) if i not in places]]
    torch.testing.assert_close(outs['cls_token'], outs['sequence'][:, places].mean(1))
    torch.testing.assert_close(outs['mean'], patches.mean(1))
    assert torch.equal(outs['max'], patches.max(1).values)


@torch.no_grad()
def test_samples_of_a_batch_do_not_mix_and_layouts_do_not_matter(nan_memory):
    model, x = small(), image(3, 3, 40, 64)
    together = model(x)
    for out, other in zip(together, model(x.contiguous(memory_format=torch.channels_last)), strict=True):
        torch.testing.assert_close(out, other, atol=1e-5, rtol=0)
        assert out.is_contiguous() and other.is_contiguous()
    for i in range(3):
        for out, alone in zip(together, model(x[i : i + 1]), strict=True):
            torch.testing.assert_close(out[i : i + 1], alone, atol=1e-5, rtol=0)
    assert [len(out) for out in model(x[:0])] == [0] * 4


@pytest.mark.parametrize('given, built', [((3,), (3,)), ((2, 0), (0, 2)), ((-1, -4), (0, 3)), (1, (1,))])
@torch.no_grad()
def test_selected_blocks(given, built):
    model = small(seed=1, out_strides=(16,) * 4)
    part = small(seed=2, out_indices=given, out_strides=(16,) * len(built))
    assert part.out_indices == built and len(part.blocks) == built[-1] + 1
    part.load_state_dict(model.state_dict())
    x = image(1, 3, 45, 32)
    full = model(x)
    for i, out in zip(built, part(x), strict=True):
        assert torch.equal(out, full[i])
    assert part.feature_info.channels() == [32] * len(built) and part.feature_info.reduction() == [16] * len(built)


def test_feature_info_names_the_layers_of_the_outputs():
    model = small()
    seen = {}
    for info in model.feature_info:
        layer = model.get_submodule(info['module'])
        layer.register_forward_hook(lambda module, args, out, name=info['module']: seen.__setitem__(name, out))
    outs = model(image(1, 3, 64, 64))
    for out, info in zip(outs, model.feature_info, strict=True):
        assert torch.equal(out, seen[info['module']])
        assert tuple(out.shape[1:]) == (info['num_chs'], 64 // info['reduction'], 64 // info['reduction'])
    assert small(out_type='mean').feature_info == [dict(num_chs=32, reduction=None, module='final_norm')]


def test_default_blocks_end_the_four_quarters():
    with torch.device('meta'):
        assert Vim('tiny').out_indices == (5, 11, 17, 23)


# ---- precision ----


def test_float64_autocast_and_half_precision_are_close_to_float32():
    model, x = small(), image(2, 3, 40, 50)
    outs = model(x)
    streams = []
    model.blocks[2].norm.register_forward_hook(lambda module, args, out: streams.append(args[0].dtype))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixed = model(x)
        loss([out.float() for out in mixed]).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    half = copy.deepcopy(model).bfloat16()(x.bfloat16())
    high = model.double()(x.double())
    assert streams == [torch.float32, torch.float32, torch.float64]
    for out, low, lower, exact in zip(outs, mixed, half, high, strict=True):
        assert (exact.dtype, lower.dtype) == (torch.float64, torch.bfloat16)
        torch.testing.assert_close(out.double(), exact, atol=2e-5, rtol=0)
        torch.testing.assert_close(low.double(), exact, atol=0.1, rtol=0)
        torch.testing.assert_close(lower.double(), exact, atol=0.1, rtol=0)


@pytest.mark.skipif(not hasattr(torch.library, 'custom_op'), reason='before torch 2.4 the scan cannot be traced')
def test_compiles_to_one_graph():
    model, x = small(), image(1, 3, 40, 50)
    torch._dynamo.reset()
    with torch.no_grad():
        for out, expected in zip(torch.compile(model, fullgraph=True, backend='aot_eager')(x), model(x), strict=True):
            torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


# ---- training ----


@pytest.mark.parametrize('out_type', ['pyramid', 'cls_token'])
def test_checkpointing_changes_no_gradient(out_type):
    """Neither with stochastic depth: the recomputation draws nothing."""
    model, x = small(out_type=out_type, drop_path_rate=0.5).train(), image(4, 3, 33, 40)
    results = []
    for model.with_cp in (False, True):
        model.zero_grad()
        torch.manual_seed(5)
        loss(model(x)).backward()
        results.append([p.grad.clone() for p in model.parameters()])
    for grad, other in zip(*results, strict=True):
        torch.testing.assert_close(grad, other, atol=1e-6, rtol=1e-5)


def test_drop_path_rises_linearly_over_the_blocks():
    with torch.device('meta'):
        model = Vim('tiny', drop_path_rate=0.3)
        part = Vim('tiny', drop_path_rate=0.3, out_indices=(3,), out_strides=(16,))
    rates = [block.drop_path.drop_prob for block in model.blocks]
    # the authors write [0, *linspace(0, rate, 24)] for the input of each block, and the rate for the last output
    assert rates == pytest.approx(torch.linspace(0, 0.3, 24).tolist())
    assert [block.drop_path.drop_prob for block in part.blocks] == rates[:4]


@torch.no_grad()
def test_dropped_paths_leave_the_stream_as_it_was():
    """Nearly all are dropped but the first block's: samples then are what a model of that block gives."""
    model = small(out_type='mean').train()
    for block in model.blocks[1:]:
        block.drop_path.drop_prob = 0.999
    x = image(4, 3, 32, 48)
    dropped = model(x)[0]
    first = small(out_type='mean')
    first.blocks = first.blocks[:1]
    torch.testing.assert_close(dropped, first(x)[0])
    assert not torch.allclose(model.eval()(x)[0], dropped, atol=1e-3)


@pytest.mark.parametrize('out_type', ['pyramid', 'mean'])
@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_frozen_stages(frozen_stages, out_type):
    model = small(frozen_stages=frozen_stages, drop_path_rate=0.3, out_type=out_type)
    assert model.train() is model
    start = ('patch_embed.', 'cls_token', 'pos_embed') if frozen_stages >= 0 else ()
    norms = (
        ['final_norm.'] * (frozen_stages == 4) if out_type == 'mean' else [f'norm{i}.' for i in range(frozen_stages)]
    )
    frozen = (*start, *(f'blocks.{i}.' for i in range(frozen_stages)), *norms)
    for name, p in model.named_parameters():
        assert p.requires_grad == (not name.startswith(frozen or 'nothing')), name
    for name, module in model.named_modules():
        assert module.training == (not f'{name}.'.startswith(frozen or 'nothing')), name
    if frozen_stages < 4 or out_type == 'pyramid':
        loss(model(image(1, 3, 32, 32))).backward()


def test_initialisation():
    torch.manual_seed(0)
    model = Vim('tiny', out_indices=(0,), out_strides=(16,))
    weight = model.patch_embed.weight
    assert weight.std().item() == pytest.approx(weight[0].numel() ** -0.5, rel=0.02)
    assert (model.patch_embed.bias == 0).all()
    for tokens in (model.pos_embed, model.cls_token):
        assert tokens.std().item() == pytest.approx(0.02, rel=0.15)
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_copies_and_files_give_the_same_maps(tmp_path):
    model, x = small(), image(1, 3, 32, 40)
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    loaded = small(seed=1)
    loaded.load_state_dict(torch.load(tmp_path / 'weights.pth', weights_only=True))
    for other in (copy.deepcopy(model), loaded):
        assert all(torch.equal(a, b) for a, b in zip(model(x), other(x), strict=True))


def test_layer_depth_of_every_parameter():
    with torch.device('meta'):
        model = Vim('tiny')
    for name, _ in model.named_parameters():
        if name.startswith(('patch_embed.', 'cls_token', 'pos_embed')):
            expected = 0
        elif match := re.match(r'blocks\.(\d+)\.', name):
            expected = 1 + int(match[1])
        else:
            assert re.match(r'norm\d+\.|pyramid\.', name)
            expected = 25
        assert model.get_layer_depth(f'backbone.{name}') == (expected, 26), name
        assert model.get_layer_depth(f'a.b.{name}', prefix='a.b.') == (expected, 26), name
    assert model.get_layer_depth('decode_head.conv.weight') == (25, 26)


def test_layer_decay_of_mmpretrain():
    classifier = image_classifier('tiny')
    constructor = LearningRateDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05)), dict(layer_decay_rate=0.5)
    )
    rates = {group['param_name']: group['lr'] for group in constructor(classifier).optimizer.param_groups}
    assert set(rates) == {name for name, _ in classifier.named_parameters()}
    assert rates['backbone.pos_embed'] == 0.5**25 and rates['backbone.blocks.23.norm.weight'] == 0.5
    assert rates['backbone.final_norm.weight'] == rates['head.fc.weight'] == 1.0


# ---- what cannot be ----


@pytest.mark.parametrize(
    'x, said',
    [
        (torch.zeros(1, 4, 32, 32), r'\(B, 3, H, W\), got shape \(1, 4, 32, 32\)'),
        (torch.zeros(3, 32, 32), r'\(B, 3, H, W\), got shape \(3, 32, 32\)'),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 'floating-point.*torch.uint8; normalise'),
        (torch.zeros(1, 3, 0, 32), r'no pixels: shape \(1, 3, 0, 32\)'),
    ],
)
def test_an_input_that_cannot_work(x, said):
    with pytest.raises(ValueError, match=said):
        small()(x)


NAMES = 'tiny, small, base, tiny-stride8, small-stride8, base-stride8'


@pytest.mark.parametrize(
    'arch, said',
    [
        ('Tiny', f"unknown arch 'Tiny' .did you mean 'tiny'.*{NAMES}"),
        (None, f'name .{NAMES}. or a dict.*None'),
        (dict(base='tinny'), "unknown base 'tinny' .did you mean 'tiny'"),
        (dict(base='tiny', dims=3), "unknown field 'dims'.*embed_dims, depth, d_state"),
        (dict(embed_dims=32), 'lacks depth, d_state'),
        *((dict(base='tiny', **{field: value}), field) for field, value in [
            ('embed_dims', 0), ('embed_dims', 19.2), ('depth', 0), ('d_state', '16'), ('dt_rank', 'full'),
            ('dt_rank', 0), ('ssm_ratio', 0.001), ('ssm_ratio', '2'), ('patch_size', -1), ('patch_stride', 17),
            ('patch_stride', 0), ('cls_token', 'tail'), ('cls_token', ['head']), ('img_size', 8),
            ('img_size', (224, 224)),
        ]),
    ],
    ids=str,
)  # fmt: skip
def test_an_arch_that_is_none(arch, said):
    with torch.device('meta'), pytest.raises(ValueError, match=said):
        Vim(arch)


@pytest.mark.parametrize(
    'options, said',
    [
        (dict(out_type='gap'), "out_type must be one of pyramid, cls_token, mean, max, got 'gap'"),
        (dict(features='norm'), "features must be one of block, mixer, got 'norm'"),
        (dict(out_type='mean', out_indices=(3,)), "out_indices can be given for out_type='pyramid' only"),
        (dict(out_type='mean', features='mixer', norm_cfg=dict(type='BN')), 'features, norm_cfg can be given'),
        (dict(out_indices=(0, 4)), 'out_indices.*-4 and 3.*got 4'),
        (dict(out_indices=()), 'out_indices.*at least one'),
        (dict(out_indices='3'), 'out_indices.*list of blocks'),
        (dict(out_indices=(3, -1)), 'out_indices names a block twice'),
        (dict(out_indices=(3,)), r'out_strides.*each of the 1 outputs, got \(4, 8, 16, 32\) by default'),
        (dict(out_strides=(4, 8)), r'out_strides.*each of the 4 outputs, got \(4, 8\)$'),
        (dict(out_strides=(2, 8, 16, 32)), 'out_strides: 2 cannot be reached'),
        (dict(drop_path_rate=1.0), 'drop_path_rate'),
        (dict(frozen_stages=5), 'frozen_stages.*-1 and 4.*5'),
        (dict(with_cp=1), 'with_cp'),
        (dict(in_channels=0), 'in_channels'),
    ],
    ids=str,
)
def test_an_option_out_of_range(options, said):
    with torch.device('meta'), pytest.raises(ValueError, match=said):
        small(**options)


def test_default_blocks_need_four():
    with torch.device('meta'), pytest.raises(ValueError, match='out_indices must be given for depth=3'):
        small(arch=dict(depth=3))


def test_an_unknown_option_lists_the_known_ones():
    with pytest.raises(TypeError, match="Vim has no option 'out_typ' .did you mean 'out_type'.*out_indices, features"):
        Vim('tiny', out_typ='mean')
