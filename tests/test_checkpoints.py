"""Conversion of published state dicts, and the check of what a backbone is given to load."""

from collections import OrderedDict

import published
import pytest
import torch
from torch import nn

from mmmsvmamba import MSVMamba, Vim
from mmmsvmamba.checkpoints import CheckpointError, convert_official, recognise_family

pytestmark = published.needs_reference

#: Blocks of the models here: one kind of each layer suffices.
DEPTHS = [1, 1, 1, 1]


def official(arch: str = 'nano', kind: str = 'backbone', seed: int = 0) -> dict[str, torch.Tensor]:
    """A published state dict of a shallow model."""
    shapes = published.shallow(published.shapes(arch, kind), DEPTHS)
    return published.random_weights().make_state_dict(shapes, seed)


def shallow(arch: str = 'nano', **kwargs) -> nn.Module:
    return published.backbone_class(arch)(dict(base=arch, depths=DEPTHS), **kwargs)


def prefixed(weights: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in weights.items()}


def assert_same(given: dict, expected: dict) -> None:
    assert list(given) == list(expected)
    for key, value in given.items():
        assert torch.equal(value, expected[key]), key


# ---- what is converted ----


@pytest.mark.parametrize('arch, full', [('nano', 1), ('tiny-v3', 0), ('base-v3', 0)])
def test_stacked_parameters_go_to_their_resolution(arch, full):
    """The two families stack full and half resolution in opposite order."""
    weights = official(arch)
    converted = convert_official(weights)
    op, scans = 'layers.2.blocks.0.op', 'stages.2.blocks.0.mixer'
    for theirs, ours in (
        ('x_proj_weight', 'x_proj_weight'),
        ('dt_projs_weight', 'dt_weight'),
        ('dt_projs_bias', 'dt_bias'),
    ):
        pair = weights[f'{op}.{theirs}']
        assert torch.equal(converted[f'{scans}.full_res.scan.{ours}'], pair[full][None])
        assert torch.equal(converted[f'{scans}.half_res.scan.{ours}'], pair[1 - full][None])
    for theirs, ours in (('A_logs', 'A_log'), ('Ds', 'D')):
        pair = weights[f'{op}.{theirs}'].chunk(2)
        assert torch.equal(converted[f'{scans}.full_res.scan.{ours}'][0], pair[full])
        assert torch.equal(converted[f'{scans}.half_res.scan.{ours}'][0], pair[1 - full])


@pytest.mark.parametrize('arch', ['nano', 'tiny-v3', 'base-v3', 'tiny-v0'])
def test_the_input_projection_is_split_into_scan_and_gate(arch):
    weights = official(arch)
    converted = convert_official(weights)
    theirs = weights['layers.1.blocks.0.op.in_proj.weight'].flatten(1)
    ours = [converted.get(f'stages.1.blocks.0.mixer.{name}.weight') for name in ('in_proj', 'gate_proj')]
    assert (ours[1] is None) == (arch == 'tiny-v3')
    assert torch.equal(torch.cat([part for part in ours if part is not None]), theirs)


@pytest.mark.parametrize('arch', ['nano', 'tiny-v3'])
@pytest.mark.parametrize('dims', [2, 4])
def test_linear_layers_come_as_matrices_or_as_convolutions(arch, dims):
    weights = official(arch)
    linear = ('in_proj.weight', 'out_proj.weight', 'linear1.weight', 'linear2.weight')
    changed = {
        key: (value.flatten(1) if dims == 2 else value.reshape(*value.shape[:2], 1, 1))
        if key.endswith(linear)
        else value
        for key, value in weights.items()
    }
    assert_same(convert_official(changed), convert_official(weights))


@pytest.mark.parametrize(
    'arch, family',
    [
        ('nano', 'v1'),
        ('micro', 'v1'),
        ('tiny-v3', 'v3'),
        ('base-v3', 'v3'),
        ('tiny-v0', 'vmamba-v0'),
        ('base-s2l15', 'vmamba-v2'),
        ('tiny-s1l8', 'vmamba-v2'),
    ],
)
def test_families_are_recognised(arch, family):
    assert recognise_family(official(arch)) == family


def test_the_input_stays_as_it_is():
    weights = official(kind='cls')
    given = {'model': weights, 'epoch': 3}
    keys, copies = list(weights), {key: value.clone() for key, value in weights.items()}
    for target in ('backbone', 'classifier'):
        convert_official(given, target)
    assert list(given) == ['model', 'epoch'] and given['model'] is weights
    assert list(weights) == keys
    assert_same(weights, copies)


def old_names(weights: dict) -> dict:
    """As early releases named things."""
    names = [
        ('patch_embed.0.', 'patch_embed.proj.'),
        ('patch_embed.2.', 'patch_embed.norm.'),
        ('.blocks.0.norm.', '.blocks.0.ln_1.'),
        ('.op.', '.self_attention.'),
        ('classifier.', ''),
    ]
    renamed = {}
    for key, value in weights.items():
        for new, old in names:
            key = key.replace(new, old)
        renamed[key] = value
    return renamed


@pytest.mark.parametrize(
    'dress',
    [
        lambda weights: weights,
        lambda weights: OrderedDict(weights),
        lambda weights: {'model': weights, 'optimizer': {'state': {}}, 'epoch': 1},
        lambda weights: {'model_ema': weights},
        lambda weights: {'state_dict': weights, 'meta': {}},
        lambda weights: prefixed(weights, 'module.'),
        lambda weights: prefixed(weights, 'backbone.'),
        lambda weights: {'state_dict': prefixed(weights, 'module.backbone.')},
        lambda weights: {'model': prefixed(weights, 'module.')},
        lambda weights: {'model': prefixed(weights, 'backbone.'), 'model_ema': prefixed(weights, 'backbone.')},
        lambda weights: {'model': prefixed(weights, 'module.'), 'model_ema': prefixed(weights, 'module.')},
        lambda weights: {'model': old_names(weights), 'model_ema': old_names(weights)},
        old_names,
        lambda weights: {'state_dict': prefixed(old_names(weights), 'backbone.')},
    ],
    ids=[
        'bare', 'ordered', 'model', 'model_ema', 'state_dict', 'module', 'backbone', 'module.backbone', 'model+module',
        'both+backbone', 'both+module', 'both+old', 'old', 'backbone+old',
    ],
)  # fmt: skip
@pytest.mark.parametrize('target', ['backbone', 'classifier'])
def test_wrappers_prefixes_and_old_names(dress, target):
    weights = official(kind='cls')
    assert_same(convert_official(dress(weights), target), convert_official(weights, target))


@pytest.mark.parametrize(
    'arch, reported, other',
    [
        ('nano', 'model', 'model_ema'),
        ('tiny-v3', 'model_ema', 'model'),
        ('tiny-v0', 'model', 'model_ema'),
        ('tiny-s1l8', 'model', 'model_ema'),
    ],
)
def test_the_reported_weights_are_taken(arch, reported, other, log):
    first, second = official(arch, seed=1), official(arch, seed=2)
    given = {reported: first, other: second, 'epoch': 1}
    assert_same(convert_official(given), convert_official(first))
    assert any(f'took {reported!r}' in message for message in log)
    assert_same(convert_official(given, wrapper=other), convert_official(second))


def test_a_wrapper_that_is_not_there():
    with pytest.raises(CheckpointError, match="no 'model_ema'; it has model, epoch"):
        convert_official({'model': official(), 'epoch': 1}, wrapper='model_ema')


@pytest.mark.parametrize('arch', ['nano', 'tiny-v3'])
def test_targets(arch):
    weights = {**official(arch, 'backbone'), **official(arch, 'cls', seed=1)}
    backbone, classifier = convert_official(weights), convert_official(weights, 'classifier')
    assert torch.equal(backbone['norm3.weight'], weights['outnorm3.weight'])
    assert torch.equal(classifier['backbone.norm3.weight'], weights['classifier.norm.weight'])
    assert torch.equal(classifier['head.fc.weight'], weights['classifier.head.weight'])
    assert torch.equal(classifier['head.fc.bias'], weights['classifier.head.bias'])
    assert set(backbone) == set(shallow(arch).state_dict())
    assert set(classifier) == set(prefixed(shallow(arch, out_indices=(3,)).state_dict(), 'backbone.')) | {
        'head.fc.weight', 'head.fc.bias'
    }  # fmt: skip


@pytest.mark.parametrize('target', ['detector', 'segmentor'])
@pytest.mark.parametrize('wrapped', [False, True])
def test_the_rest_of_a_detector_passes_through(target, wrapped):
    weights = official()
    rest = {
        'neck.lateral_convs.0.conv.weight': torch.rand(2, 2, 1, 1),
        'rpn_head.rpn_conv.weight': torch.rand(2, 2, 3, 3),
        'roi_head.bbox_head.0.fc_cls.weight': torch.rand(3, 2),
        'decode_head.layers.0.norm.weight': torch.rand(2),
        'data_preprocessor.mean': torch.rand(3),
    }
    given = {**prefixed(weights, 'backbone.'), **rest}
    converted = convert_official({'state_dict': given} if wrapped else given, target)
    assert {key: value for key, value in converted.items() if not key.startswith('backbone.')} == rest
    assert_same({k: v for k, v in converted.items() if k not in rest}, prefixed(convert_official(weights), 'backbone.'))
    assert_same(convert_official(given, 'backbone'), convert_official(weights))


# ---- what is refused ----


def test_an_unknown_target():
    with pytest.raises(ValueError, match="backbone, classifier, detector, segmentor, got 'neck'"):
        convert_official(official(), 'neck')


@pytest.mark.parametrize('target', ['detector', 'segmentor'])
def test_a_detector_without_a_backbone(target):
    with pytest.raises(CheckpointError, match=f'no key starts with "backbone.", so this is no {target}; it has layers'):
        convert_official(official(), target)


@pytest.mark.parametrize(
    'weights',
    [
        {},
        {'conv1.weight': torch.rand(1), 'layer1.0.conv1.weight': torch.rand(1)},
        {'patch_embed.proj.weight': torch.rand(1), 'layers.0.blocks.0.attn.qkv.weight': torch.rand(1)},
        {'model': {'blocks.0.attn.qkv.weight': torch.rand(1)}, 'model_ema': {}},
    ],
    ids=['empty', 'ResNet', 'Swin', 'ViT with an average'],
)
def test_foreign_weights(weights):
    with pytest.raises(CheckpointError, match='not the weights of a published MSVMamba, VMamba or Vim model'):
        convert_official(weights)


@pytest.mark.parametrize('arch, other', [('tiny-v3', 'tiny-s1l8'), ('tiny', 'tiny-v0')])
def test_vmamba_weights_are_told_apart(arch, other):
    """They have the same names, but no half resolution."""
    for holder, file in ((arch, other), (other, arch)):
        family = published.backbone_class(file).__name__
        with pytest.raises(CheckpointError, match=f"weights of {family}: load them with type='{family}'"):
            shallow(holder).load_state_dict(official(file))


@pytest.mark.parametrize(
    'key', ['layers.0.blocks.0.op.gamma', 'layers.0.downsample.7.bias', 'patch_embed.9.weight', 'top.x']
)
def test_an_unknown_key(key):
    with pytest.raises(CheckpointError, match=f'{key} is not a key'):
        convert_official({**official(), key: torch.rand(1)})


def outcome(model: MSVMamba, weights: dict) -> str:
    try:
        model.load_state_dict(weights)
    except CheckpointError:
        return 'refused'
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return 'taken'


@pytest.mark.parametrize('arch', ['nano', 'tiny-v3', 'tiny-v0', 'tiny-s1l8'])
def test_whichever_key_is_missing_the_file_is_refused(arch):
    weights, model = official(arch), shallow(arch)
    keys = [key for key in weights if not key.startswith(('outnorm', 'layers.1', 'layers.2'))]
    outcomes = {key: outcome(model, {k: v for k, v in weights.items() if k != key}) for key in keys}
    assert {key: said for key, said in outcomes.items() if said != 'refused'} == {}


@pytest.mark.parametrize('arch', ['nano', 'tiny-v3', 'tiny-v0', 'tiny-s1l8'])
def test_whichever_key_is_misshaped_the_file_is_refused(arch):
    weights, model = official(arch), shallow(arch)
    keys = [key for key in weights if not key.startswith(('layers.1', 'layers.2'))]
    outcomes = {key: outcome(model, {**weights, key: torch.cat([weights[key], weights[key][:1]])}) for key in keys}
    assert {key: said for key, said in outcomes.items() if said != 'refused'} == {}


# ---- loading into a backbone ----


@pytest.mark.parametrize('arch', ['nano', 'tiny-v3'])
@pytest.mark.parametrize(
    'dress',
    [
        lambda w: w,
        lambda w: {'model': w, 'epoch': 3},
        lambda w: prefixed(w, 'module.'),
        lambda w: prefixed(w, 'backbone.'),
    ],
    ids=['bare', 'wrapped', 'module', 'backbone'],
)
def test_a_backbone_takes_published_names_and_its_own(arch, dress):
    theirs, model = official(arch), shallow(arch)
    ours = convert_official(theirs)
    for weights in (theirs, ours):
        model.apply(lambda module: [nn.init.zeros_(p) for p in module.parameters(recurse=False)])
        given = dress(weights)
        keys = list(given)
        model.load_state_dict(given)
        assert list(given) == keys
        state = model.state_dict()
        assert all(torch.equal(state[key], ours[key]) for key in state)


def test_a_classifier_file_leaves_the_output_norms_and_says_so(log):
    model = shallow()
    with torch.no_grad():
        model.norm2.weight.fill_(3)
    model.load_state_dict(official(kind='cls'))
    assert (model.norm2.weight == 3).all()
    assert any('norm0, norm1, norm2, norm3' in message and 'left at initialisation' in message for message in log)
    assert any('converted published v1 weights for MSVMamba' in message for message in log)
    assert any('classifier' in message for message in log), 'the dropped classifier is not logged'


def test_unused_norms_and_stages_pass_and_are_logged(log):
    model = shallow(out_indices=(1,))
    model.load_state_dict(official())
    expected = convert_official(official())
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    message = next(message for message in log if 'not used by out_indices=(1,)' in message)
    assert 'norm0' in message or 'stages.2' in message


def test_nothing_is_logged_when_a_file_of_this_package_fits(log):
    shallow().load_state_dict(shallow().state_dict())
    assert not log


def test_hooks_work_at_any_depth():
    class Holder(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.head = nn.Linear(2, 2)

    model = Holder(Holder(shallow()))
    given = {**model.state_dict(), **prefixed(official(), 'inner.inner.')}
    own = set(convert_official(official()))
    given = {key: v for key, v in given.items() if key.removeprefix('inner.inner.') not in own}
    model.load_state_dict(given, strict=True)
    expected = convert_official(official())
    assert all(torch.equal(value, expected[key]) for key, value in model.inner.inner.state_dict().items())


def test_strict_or_not_weights_that_do_not_fit_are_refused():
    for strict in (True, False):
        with pytest.raises(CheckpointError) as error:
            shallow('nano').load_state_dict(official('micro'), strict=strict)
        message = str(error.value)
        assert 'mis-shaped' in message and 'ffn.dwconv.bias (128,) (the model has (96,))' in message
        assert 'arch' in message


def test_weights_of_the_other_family_are_refused():
    with pytest.raises(CheckpointError, match='missing') as error:
        shallow('tiny').load_state_dict(official('tiny-v3'))
    assert 'unexpected' in str(error.value)


def test_weights_of_this_package_in_another_class():
    vim = Vim(dict(base='tiny', depth=4, embed_dims=32))
    with pytest.raises(CheckpointError, match='These are weights of MSVMamba or VMamba: set type'):
        vim.load_state_dict(shallow().state_dict())
    with pytest.raises(CheckpointError, match='These are weights of Vim: set type'):
        shallow().load_state_dict(vim.state_dict())
    with pytest.raises(CheckpointError, match='belongs to this architecture'):
        shallow().load_state_dict(shallow('micro').state_dict())


def test_weights_of_a_deeper_or_shallower_model_are_refused():
    deeper = MSVMamba(dict(base='nano', depths=[1, 1, 2, 1]))
    with pytest.raises(CheckpointError, match=r'31 missing: stages\.2\.blocks\.1'):
        deeper.load_state_dict(official())
    with pytest.raises(CheckpointError, match=r'31 unexpected: stages\.2\.blocks\.1'):
        shallow().load_state_dict(deeper.state_dict())


def test_a_file_of_another_network_is_refused():
    with pytest.raises(CheckpointError, match='unexpected: conv1.weight') as error:
        shallow().load_state_dict({'conv1.weight': torch.rand(64, 3, 7, 7), 'fc.bias': torch.rand(5)})
    assert 'missing: stem.conv.weight' in str(error.value)


def test_an_empty_file_is_refused():
    with pytest.raises(CheckpointError, match='no weights'):
        shallow().load_state_dict({}, strict=False)


def test_a_refused_file_leaves_the_weights_alone():
    model = shallow()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    weights = official()
    weights['outnorm3.weight'] = torch.rand(5)
    with pytest.raises(CheckpointError, match='norm3.weight'):
        model.load_state_dict(weights)
    assert_same(dict(model.state_dict()), before)
