"""Counted operations of the released models against the authors' own count of their code."""

from math import ceil

import mmpretrain.models  # noqa: F401 (registers the classifier)
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmmsvmamba import MSVMamba
from mmmsvmamba.analysis import count_flops

SHAPES = [(224, 224), (1280, 800), (512, 2048)]
#: Operations of the backbone at each of SHAPES, then of the classifier at 224×224: fvcore's count of the authors' code.
PUBLISHED = {
    'nano': (883_866_460, 18_003_476_808, 18_431_705_320, 882_952_156),
    'micro': (1_533_523_972, 31_239_403_952, 31_982_995_552, 1_532_304_900),
    'tiny': (4_614_756_596, 94_049_257_376, 96_294_053_216, 4_612_927_988),
    'tiny-v3': (5_135_690_112, 104_759_275_008, 107_267_615_232, 5_133_861_504),
    'small-v3': (8_773_331_712, 178_988_809_728, 183_278_648_832, 8_771_503_104),
    'base-v3': (16_284_957_696, 332_247_670_784, 340_211_736_576, 16_282_519_552),
}
#: Of the classifier, those kinds of operator that are the same in both codes.
PUBLISHED_BY_OPERATOR = {
    'nano': dict(layer_norm=16_738_560, scan=18_612_480, bilinear=4_214_784, avg_pool=1_072_512),
    'micro': dict(layer_norm=22_318_080, scan=24_816_640, bilinear=5_619_712, avg_pool=1_430_016),
    'tiny': dict(layer_norm=41_756_160, scan=47_761_920, bilinear=10_838_016, avg_pool=2_747_136),
    'tiny-v3': dict(layer_norm=30_858_240, scan=29_149_440, nearest=1_655_808, avg_pool=1_693_440),
    'small-v3': dict(layer_norm=45_534_720, scan=46_272_000, nearest=2_634_240, avg_pool=2_671_872),
    'base-v3': dict(layer_norm=60_712_960, scan=61_696_000, nearest=3_512_320, avg_pool=3_562_496),
}
archs = pytest.mark.parametrize('arch', PUBLISHED)


def backbone(arch: str) -> MSVMamba:
    with torch.device('meta'):
        return MSVMamba(arch)


def classifier(arch: str) -> torch.nn.Module:
    spec = backbone(arch).arch
    config = dict(
        type='ImageClassifier',
        backbone=dict(type='MSVMamba', arch=arch, out_indices=(3,)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=spec.dims[3]),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        return MODELS.build(config)


def rounded(macs: int) -> int:
    """What fvcore makes of an einsum: it reads twice the number off a text with four digits."""
    return int(float(f'{2 * macs:.3e}') / 2)


def authors_extra(arch: str, height: int, width: int) -> int:
    """What their count has more: projections of each half-resolution scan by itself, and the rounding of einsum."""
    spec = backbone(arch).arch
    extra = 0
    for i, (depth, dim) in enumerate(zip(spec.depths, spec.dims, strict=True)):
        pixels = ceil(height / 4 / 2**i) * ceil(width / 4 / 2**i)
        half = ceil(height / 8 / 2**i) * ceil(width / 8 / 2**i)
        inner, rank = int(spec.ssm_ratio * dim), spec.rank(dim)
        to_scan = (rank + 2 * spec.d_state) * inner
        per_block = 2 * half * to_scan
        if not arch.endswith('v3'):  # their second code has convolutions there
            einsums = [n * macs for n in (pixels, 3 * half) for macs in (to_scan, rank * inner)]
            per_block += sum(map(rounded, einsums)) - sum(einsums)
        extra += depth * per_block
    return extra


@archs
def test_backbones_differ_from_the_authors_count_by_what_is_known(arch):
    model = backbone(arch)
    for shape, published in zip(SHAPES, PUBLISHED[arch], strict=False):
        total = count_flops(model, (1, 3, *shape)).total
        assert total == pytest.approx(published, rel=0.01)
        assert total + authors_extra(arch, *shape) == published, shape


@pytest.mark.parametrize('arch', ['nano', 'tiny-v3'])
def test_a_turned_image_takes_as_much(arch):
    model = backbone(arch)
    assert count_flops(model, (1, 3, 800, 1280)) == count_flops(model, (1, 3, 1280, 800))


@archs
def test_classifiers_differ_from_the_authors_count_by_what_is_known(arch):
    count = count_flops(classifier(arch), (1, 3, 224, 224))
    published = PUBLISHED[arch][-1]
    assert count.total == pytest.approx(published, rel=0.01)
    assert count.total + authors_extra(arch, 224, 224) == published
    assert {kind: count.by_operator[kind] for kind in PUBLISHED_BY_OPERATOR[arch]} == PUBLISHED_BY_OPERATOR[arch]
    assert set(count.by_operator) == {'conv', 'matmul', *PUBLISHED_BY_OPERATOR[arch]}
