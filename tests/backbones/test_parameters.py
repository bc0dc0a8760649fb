"""Parameter counts of every published model, and key sets of the published files."""

import json

import published
import pytest
import torch
from mmpretrain.registry import MODELS as PRETRAIN_MODELS

from mmmsvmamba.checkpoints import convert_official


def kind_of(arch: str | dict) -> type:
    return published.backbone_class(arch if isinstance(arch, str) else arch['base'])


def count(arch, **kwargs) -> int:
    with torch.device('meta'):
        return sum(p.numel() for p in kind_of(arch)(arch, **kwargs).parameters())


def count_classifier(arch) -> int:
    """With a norm behind the last stage and a linear layer to 1000 classes."""
    with torch.device('meta'):
        model = kind_of(arch)(arch, out_indices=(3,))
    return sum(p.numel() for p in model.parameters()) + 1000 * (model.arch.dims[3] + 1)


@published.needs_reference
@pytest.mark.parametrize('arch, name', published.MODELS.items())
def test_counts_equal_the_record(arch, name):
    recorded = json.loads((published.REFERENCE / 'manifests' / 'counts.json').read_text())[name]
    assert count(arch) == recorded['params_backbone']
    assert count_classifier(arch) == recorded['params_cls']


@pytest.mark.parametrize(
    'arch, classifier, backbone',
    [
        ('nano', 6_864_136, 6_479_808),
        ('micro', 11_879_272, 11_367_168),
        ('tiny', 33_046_312, 32_278_656),
        ('tiny-v3', 32_263_720, 31_496_064),
        ('small-v3', 50_216_296, 49_448_640),
        ('base-v3', 90_591_976, 89_568_768),
        ('tiny-v0', 22_893_448, 22_125_792),
        ('small-v0', 44_417_416, 43_649_760),
        ('base-v0', 76_254_056, 75_230_848),
        ('tiny-s2l5', 30_705_832, 29_938_176),
        ('small-s2l15', 50_147_752, 49_380_096),
        ('base-s2l15', 88_557_800, 87_534_592),
        ('tiny-s1l8', 30_249_064, 29_481_408),
        ('small-s1l20', 49_012_840, 48_245_184),
        ('base-s1l20', 86_614_504, 85_591_296),
    ],
)
def test_counts_of_the_released_models(arch, classifier, backbone):
    assert count_classifier(arch) == classifier
    assert count(arch) == backbone


@pytest.mark.parametrize(
    'arch, expected',
    [
        pytest.param(dict(base='base-v3', depths=[2, 3, 20, 2], gate=False), 88_391_144, id='base of the slides'),
        pytest.param(dict(base='base-v3', depths=[2, 3, 20, 2]), 95_960_552, id='base of the slides, gated'),
        pytest.param(dict(base='base-v3', gate=False), 83_481_320, id='base without gate'),
        pytest.param(dict(base='tiny-v3', gate=True), 34_862_632, id='tiny-v3 with gate'),
        pytest.param(dict(base='tiny', depths=[2, 2, 9, 2]), 33_168_712, id='tiny [2,2,9,2]'),
    ],
)
def test_counts_of_unreleased_models(arch, expected):
    assert count_classifier(arch) == expected


@published.needs_reference
@pytest.mark.parametrize('kind', ['backbone', 'cls'])
@pytest.mark.parametrize('arch', published.MODELS)
def test_published_backbone_keys_become_ours(arch, kind):
    """Exactly our keys and shapes; a classifier's file lacks the output norms."""
    with torch.device('meta'):
        own = kind_of(arch)(arch).state_dict()
        given = {key: torch.empty(shape) for key, shape in published.shapes(arch, kind).items()}
    if kind == 'cls':
        own = {key: value for key, value in own.items() if not key.startswith('norm')}
    converted = convert_official(given, target='backbone')
    assert {key: tuple(value.shape) for key, value in converted.items()} == {
        key: tuple(value.shape) for key, value in own.items()
    }


@published.needs_reference
@pytest.mark.parametrize('arch', published.MODELS)
def test_published_classifier_keys_become_those_of_mmpretrain(arch):
    with torch.device('meta'):
        dim = kind_of(arch)(arch, out_indices=(3,)).arch.dims[3]
        classifier = PRETRAIN_MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=dict(type=kind_of(arch).__name__, arch=arch, out_indices=(3,)),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=1000, in_channels=dim),
            )
        )
        given = {key: torch.empty(shape) for key, shape in published.shapes(arch, 'cls').items()}
    converted = convert_official(given, target='classifier')
    assert {key: tuple(value.shape) for key, value in converted.items()} == {
        key: tuple(value.shape) for key, value in classifier.state_dict().items()
    }
