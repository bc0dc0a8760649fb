"""The numbers are those of the authors' code: recorded outputs, and a plain re-implementation at odd sizes."""

import published
import published_forward
import pytest
import torch
from mmpretrain.registry import MODELS

from mmmsvmamba.checkpoints import convert_official

pytestmark = [published.needs_reference, pytest.mark.usefixtures('nan_memory')]

#: The float32 noise of the authors' own code is a third of it, the smallest mistake in the architecture twice as large.
ATOL = 5e-5


def image_classifier(arch: str) -> torch.nn.Module:
    with torch.device('meta'):
        kind = published.backbone_class(arch)
        dim = kind(arch, out_indices=(3,)).arch.dims[3]
        classifier = MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=dict(type=kind.__name__, arch=arch, out_indices=(3,)),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=1000, in_channels=dim),
            )
        )
    return classifier.to_empty(device='cpu').eval()


def backbone(arch: str | dict) -> torch.nn.Module:
    kind = published.backbone_class(arch if isinstance(arch, str) else arch['base'])
    with torch.device('meta'):
        model = kind(arch)
    return model.to_empty(device='cpu').eval()


@pytest.mark.parametrize('arch', published.GOLDEN)
@torch.no_grad()
def test_features_are_those_of_the_authors_code(arch):
    golden = published.golden(arch)
    model = backbone(arch)
    model.load_state_dict(published.weights(arch, golden['seed']))
    for name, case in golden['cases'].items():
        outs = model(case['input'])
        assert len(outs) == len(case['outs']) == 4
        for out, expected in zip(outs, case['outs'], strict=True):
            torch.testing.assert_close(out, expected, atol=ATOL, rtol=0, msg=lambda text, name=name: f'{name}: {text}')


@pytest.mark.parametrize('arch', published.GOLDEN)
@torch.no_grad()
def test_logits_are_those_of_the_authors_code(arch):
    golden = published.golden(arch)
    model = image_classifier(arch)
    converted = convert_official(published.weights(arch, golden['seed']), target='classifier')
    model.load_state_dict(converted, strict=True)
    for case in golden['cases'].values():
        torch.testing.assert_close(model(case['input'], mode='tensor'), case['logits'], atol=ATOL, rtol=0)


@torch.no_grad()
def test_the_reimplementation_gives_the_recorded_numbers():
    """What the other architectures are compared with below is itself checked against the record."""
    golden = published.golden('nano')
    case = golden['cases']['2x64x64']
    features, logits = published_forward.forward(
        case['input'].double(), double(published.weights('nano', golden['seed']))
    )
    for feature, expected in zip(features, case['outs'], strict=True):
        torch.testing.assert_close(feature.float(), expected, atol=ATOL, rtol=0)
    torch.testing.assert_close(logits.float(), case['logits'], atol=ATOL, rtol=0)


@pytest.mark.parametrize(
    'arch, sizes',
    [
        ('nano', [(97, 131), (13, 9)]),
        ('micro', [(16, 20)]),
        ('tiny', [(8, 8), (5, 29)]),
        ('tiny-v3', [(36, 100), (13, 9)]),
        ('small-v3', [(33, 47), (8, 8)]),
        ('base-v3', [(29, 50), (4, 4)]),
        ('tiny-v0', [(13, 9), (24, 30)]),
        ('base-v0', [(8, 8)]),
        ('tiny-s2l5', [(29, 50)]),
        ('base-s2l15', [(4, 4)]),
        ('small-s1l20', [(13, 9)]),
    ],
)
@torch.no_grad()
def test_every_arch_equals_a_plain_reimplementation(arch, sizes):
    depths = [1, 2, 1, 1]  # every kind of layer, few of each
    shapes = {**published.shapes(arch, 'cls'), **published.shapes(arch, 'backbone')}
    weights = published.random_weights().make_state_dict(published.shallow(shapes, depths), seed=1)
    model = backbone(dict(base=arch, depths=depths))
    model.load_state_dict(weights)
    model.double()
    for i, size in enumerate(sizes):
        image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(i)).double()
        features, _ = published_forward.forward(image, double(weights))
        for out, expected in zip(model(image), features, strict=True):
            torch.testing.assert_close(out, expected, atol=1e-9, rtol=1e-9)


def double(weights):
    return {key: value.double() for key, value in weights.items()}
