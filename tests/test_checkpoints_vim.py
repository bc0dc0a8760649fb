"""Conversion of published Vim files, and the check of what a Vim is given to load."""

import argparse

import published
import published_vim
import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS as PRETRAIN_MODELS
from torch import nn

from mmmsvmamba import Vim
from mmmsvmamba.checkpoints import CheckpointError, convert_official, in_model_form
from mmmsvmamba.checkpoints.families import is_vim

pytestmark = published.needs_reference

DEPTH = 2
VECTOR = dict(out_type='cls_token')
MAPS = dict(out_indices=(0, 1), out_strides=(8, 16))


def official(arch: str = 'tiny', **kwargs) -> dict[str, torch.Tensor]:
    return published_vim.weights(arch, DEPTH, **kwargs)


def shallow(arch: str = 'tiny', cls_token: str | None = 'middle', **kwargs) -> Vim:
    return Vim(dict(base=arch, depth=DEPTH, cls_token=cls_token), **kwargs)


def prefixed(weights: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in weights.items()}


# ---- what is converted ----


def test_every_entry_goes_to_its_place():
    weights = official()
    copies = {key: value.clone() for key, value in weights.items()}
    converted = convert_official(weights)
    theirs, ours = 'layers.1.mixer', 'blocks.1.mixer'
    for suffix, decay, direction in (('', 'A_log', 'forwards'), ('_b', 'A_b_log', 'backwards')):
        for published_name, name in (
            (f'conv1d{suffix}.weight', 'conv.weight'),
            (f'conv1d{suffix}.bias', 'conv.bias'),
            (f'x_proj{suffix}.weight', 'scan.x_proj_weight'),
            (f'dt_proj{suffix}.weight', 'scan.dt_weight'),
            (f'dt_proj{suffix}.bias', 'scan.dt_bias'),
            (decay, 'scan.A_log'),
            (f'D{suffix}', 'scan.D'),
        ):
            value = weights[f'{theirs}.{published_name}']
            expected = value[None] if name.startswith('scan') else value
            assert torch.equal(converted[f'{ours}.{direction}.{name}'], expected)
    halves = [converted[f'{ours}.{name}.weight'] for name in ('in_proj', 'gate_proj')]
    assert torch.equal(torch.cat(halves), weights[f'{theirs}.in_proj.weight'])
    assert torch.equal(converted['final_norm.weight'], weights['norm_f.weight'])
    assert not any(key.startswith('head') for key in converted)
    assert list(weights) == list(copies) and all(torch.equal(value, copies[key]) for key, value in weights.items())


def test_a_classifier_has_the_head_of_mmpretrain():
    weights = official()
    converted = convert_official(weights, target='classifier')
    assert torch.equal(converted.pop('head.fc.weight'), weights['head.weight'])
    assert torch.equal(converted.pop('head.fc.bias'), weights['head.bias'])
    assert converted.keys() == prefixed(convert_official(weights), 'backbone.').keys()
    headless = {key: value for key, value in weights.items() if not key.startswith('head.')}
    with pytest.raises(CheckpointError, match='no classifier'):
        convert_official(headless, target='classifier')


def test_two_class_tokens_become_one_parameter():
    weights = double(official())
    converted = convert_official(weights)
    assert torch.equal(converted['cls_token'][:, 0], weights['cls_token_head'][:, 0])
    assert torch.equal(converted['cls_token'][:, 1], weights['cls_token_tail'][:, 0])
    model = shallow(cls_token='double', **VECTOR)
    model.load_state_dict(weights)
    assert torch.equal(model.cls_token, converted['cls_token'])


def double(weights: dict) -> dict:
    """As of a model with a class token before and one behind the patches."""
    rest = {key: value for key, value in weights.items() if key not in ('cls_token', 'pos_embed')}
    tokens = {f'cls_token_{end}': torch.randn(1, 1, 192) for end in ('head', 'tail')}
    return {**rest, **tokens, 'pos_embed': torch.randn(1, 198, 192)}


def test_unknown_names_and_targets():
    assert is_vim(official()) and not is_vim({}) and not is_vim(convert_official(official()))
    with pytest.raises(CheckpointError, match='not the weights of a published MSVMamba, VMamba or Vim.*conv1.weight'):
        convert_official({'conv1.weight': torch.zeros(1)})
    for key in ('rope.freqs_cos', 'layers.0.mixer.gamma', 'layers.0.norm.bias', 'norm_f.bias', 'cls_token_head'):
        with pytest.raises(CheckpointError, match=f'{key} is not a key of a published Vim file'):
            convert_official({**official(), key: torch.zeros(1)})
    with pytest.raises(CheckpointError, match='in_proj.weight has shape .767, 192.; an even'):
        convert_official({**official(), 'layers.0.mixer.in_proj.weight': torch.zeros(767, 192)})


# ---- loading into a backbone ----


@pytest.mark.parametrize(
    'dress',
    [
        lambda w: w,
        lambda w: {'model': w, 'epoch': 3},
        lambda w: prefixed(w, 'module.'),
        lambda w: prefixed(w, 'backbone.'),
        lambda w: {'state_dict': prefixed(w, 'module.backbone.')},
    ],
    ids=['bare', 'wrapped', 'module', 'backbone', 'model'],
)
def test_a_backbone_takes_published_names_and_its_own(dress):
    theirs, model = official(), shallow(**VECTOR)
    ours = convert_official(theirs)
    for weights in (theirs, ours):
        model.apply(lambda module: [nn.init.zeros_(p) for p in module.parameters(recurse=False)])
        given = dress(weights)
        keys = list(given)
        model.load_state_dict(given)
        assert list(given) == keys
        state = model.state_dict()
        assert state.keys() == ours.keys() and all(torch.equal(state[key], ours[key]) for key in state)


def test_the_reported_weights_are_taken():
    model, reported = shallow(**VECTOR), official()
    model.load_state_dict({'model': reported, 'model_ema': official(seed=1)})
    assert torch.equal(model.final_norm.weight, reported['norm_f.weight'])


@pytest.mark.parametrize('arch', published_vim.MODELS)
def test_every_published_size_loads_strictly(arch):
    """At full width; one block has every kind of key (the manifests are compared over all blocks elsewhere)."""
    weights = published_vim.weights(arch, depth=1)
    model = Vim(dict(base=arch, depth=1), **VECTOR)
    model.load_state_dict(weights, strict=True)
    expected = convert_official(weights)
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_a_classifier_file_leaves_pyramid_and_norms_and_says_so(log):
    model = shallow(**MAPS)
    with torch.no_grad():
        model.norm1.weight.fill_(3)
    model.load_state_dict(official())
    assert (model.norm1.weight == 3).all()
    assert any('no norm0, norm1, pyramid: left at initialisation' in message for message in log)
    assert any('not used by' in message and 'final_norm.weight' in message for message in log)
    assert any('converted published vim weights' in message for message in log)
    assert any('dropped the classifier' in message for message in log)


def test_a_key_too_many_in_the_last_block_is_refused():
    with pytest.raises(CheckpointError, match=r'1 unexpected: blocks\.1\.mixer\.extra'):
        shallow(**MAPS).load_state_dict({**shallow(**MAPS).state_dict(), 'blocks.1.mixer.extra': torch.zeros(1)})


def test_nothing_is_logged_when_a_file_of_this_package_fits(log):
    shallow(**MAPS).load_state_dict(shallow(**MAPS).state_dict())
    assert not log


def test_blocks_that_are_not_built_are_dropped(log):
    model = shallow(out_indices=(0,), out_strides=(16,))
    model.load_state_dict(official())
    assert any('not used by' in message and 'blocks.1.' in message for message in log)


@pytest.mark.parametrize('cls_token', ['middle', 'head', 'double', None])
@pytest.mark.parametrize('old, new', [('tiny', 'tiny-stride8'), ('tiny-stride8', 'tiny')])
def test_position_embeddings_come_to_another_grid(old, new, cls_token, log):
    source, model = (shallow(arch, cls_token=cls_token, out_type='mean') for arch in (old, new))
    nn.init.normal_(source.pos_embed)
    model.load_state_dict(source.state_dict())
    sides = {'tiny': 14, 'tiny-stride8': 27}
    places = {'middle': lambda n: [n // 2], 'head': lambda n: [0], 'double': lambda n: [0, n + 1], None: lambda n: []}
    patches = []
    for given, side in ((source.pos_embed, sides[old]), (model.pos_embed, sides[new])):
        tokens = places[cls_token](side**2)
        patches.append(given[0, [i for i in range(given.shape[1]) if i not in tokens]])
        assert torch.equal(given[0, tokens], source.pos_embed[0, places[cls_token](sides[old] ** 2)])
    grid = patches[0].T.reshape(1, 192, sides[old], sides[old])
    expected = nn.functional.interpolate(grid, size=(sides[new],) * 2, mode='bicubic')[0].flatten(1).T
    torch.testing.assert_close(patches[1], expected)
    assert any('interpolated position embeddings' in message for message in log)


def test_published_weights_give_the_authors_features():
    weights, x = official(), torch.rand(1, 3, 224, 224)
    model = shallow(**VECTOR).eval()
    model.load_state_dict(weights)
    expected = published_vim.forward(x, weights)['features'][0]
    torch.testing.assert_close(model(x)[0], expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize('cls_token, count', [('double', 2), (None, 0)])
def test_a_file_with_other_class_tokens_is_refused(cls_token, count):
    model = shallow(cls_token=cls_token, out_type='mean')
    with pytest.raises(CheckpointError, match=f'1 class tokens.*197.*cls_token={cls_token!r}: {count} class tokens'):
        model.load_state_dict(official())
    with pytest.raises(CheckpointError, match=f'{count} class tokens.*Choose the arch'):
        shallow(out_type='mean').load_state_dict(model.state_dict())


@pytest.mark.parametrize('entries', [1, 196, 198])
def test_position_embeddings_that_are_no_square(entries):
    weights = {**official(), 'pos_embed': torch.zeros(1, entries, 192)}
    with pytest.raises(CheckpointError, match=rf'\(1, {entries}, 192\).*14 × 14'):
        shallow(**VECTOR).load_state_dict(weights)


def test_whichever_key_is_missing_or_misshaped_the_file_is_refused():
    weights, model = official(), shallow(**VECTOR)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for key in (key for key in weights if not key.startswith(('head.', 'layers.1.'))):
        others = {k: v for k, v in weights.items() if k != key}
        longer = {**weights, key: torch.cat([weights[key], weights[key][:2]])}
        for given in (others, longer):
            with pytest.raises(CheckpointError):
                model.load_state_dict(given)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('strict', [True, False])
def test_weights_of_other_models_are_refused(strict):
    with pytest.raises(CheckpointError, match=r'mis-shaped: .*the model has .*192'):
        shallow(**VECTOR).load_state_dict(official('small'), strict=strict)
    with pytest.raises(CheckpointError, match=r'missing: blocks\.2\.'):
        Vim(dict(base='tiny', depth=3), **VECTOR).load_state_dict(official(), strict=strict)
    with pytest.raises(CheckpointError, match='unexpected: conv1.weight'):
        shallow(**VECTOR).load_state_dict({'conv1.weight': torch.zeros(2)}, strict=strict)
    with pytest.raises(CheckpointError, match='no weights'):
        shallow(**VECTOR).load_state_dict({}, strict=strict)
    with pytest.raises(CheckpointError, match='1 missing: final_norm.weight'):
        shallow(**VECTOR).load_state_dict(shallow(**MAPS).state_dict(), strict=strict)


# ---- files ----


def test_a_file_becomes_a_classifier(tmp_path):
    """As DeiT's training script writes files, with its options; longer sequences than the file was trained for."""
    weights, path = official(), tmp_path / 'vim.pth'
    torch.save({'model': weights, 'epoch': 299, 'args': argparse.Namespace(lr=1e-3, device='cuda')}, path)
    model = PRETRAIN_MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='Vim', arch=dict(base='tiny-stride8', depth=DEPTH), **VECTOR),
            head=dict(type='LinearClsHead', num_classes=1000, in_channels=192),
        )
    )
    load_checkpoint(model, str(path), map_location='cpu')
    assert torch.equal(model.head.fc.weight, weights['head.weight'])
    assert torch.equal(model.backbone.patch_embed.weight, weights['patch_embed.proj.weight'])
    assert model.backbone.pos_embed.shape == (1, 730, 192)


def test_a_file_becomes_a_backbone(tmp_path):
    weights, path = official(), tmp_path / 'vim.pth'
    torch.save({'model': weights}, path)
    model = shallow(init_cfg=dict(type='Pretrained', checkpoint=str(path)), **MAPS)
    model.init_weights()
    assert torch.equal(model.cls_token, weights['cls_token'])


@pytest.mark.parametrize(
    'other', [{'state_dict': {'a': torch.zeros(1)}}, {'model': {'conv1.weight': torch.zeros(1)}}, {'a': torch.zeros(1)}]
)
def test_other_files_pass_unchanged(other):
    assert in_model_form(other) is other
