"""Counted operations of the released models against the authors' own count of their code."""

from math import ceil

import mmpretrain.models  # noqa: F401 (registers the classifier)
import published
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmmsvmamba.analysis import count_flops
from mmmsvmamba.backbones.hierarchical import HierarchicalBackbone

SHAPES = [(224, 224), (1280, 800), (512, 2048)]
#: Operations of the backbone at each of SHAPES, then of the classifier at 224×224: fvcore's count of the authors' code.
PUBLISHED = {
    'nano': (883_866_460, 18_003_476_808, 18_431_705_320, 882_952_156),
    'micro': (1_533_523_972, 31_239_403_952, 31_982_995_552, 1_532_304_900),
    'tiny': (4_614_756_596, 94_049_257_376, 96_294_053_216, 4_612_927_988),
    'tiny-v3': (5_135_690_112, 104_759_275_008, 107_267_615_232, 5_133_861_504),
    'small-v3': (8_773_331_712, 178_988_809_728, 183_278_648_832, 8_771_503_104),
    'base-v3': (16_284_957_696, 332_247_670_784, 340_211_736_576, 16_282_519_552),
    'tiny-v0': (5_628_723_648, 114_871_452_000, 117_628_426_848, 5_626_895_040),
    'small-v0': (11_233_351_392, 229_248_708_000, 234_750_924_192, 11_231_522_784),
    'base-v0': (18_022_553_280, 367_802_720_000, 376_622_565_280, 18_020_115_136),
    'tiny-s2l5': (4_859_570_688, 99_174_912_000, 101_555_109_888, 4_857_742_080),
    'small-s2l15': (8_717_603_328, 177_910_272_000, 182_180_118_528, 8_715_774_720),
    'base-s2l15': (15_361_382_400, 313_497_600_000, 321_021_542_400, 15_358_944_256),
    'tiny-s1l8': (4_907_438_592, 100_151_808_000, 102_555_451_392, 4_905_609_984),
    'small-s1l20': (8_614_040_064, 175_796_736_000, 180_015_857_664, 8_612_211_456),
    'base-s1l20': (15_223_298_048, 310_679_552_000, 318_135_861_248, 15_220_859_904),
}
#: Of the classifier, those kinds of operator that are the same in both codes.
PUBLISHED_BY_OPERATOR = {
    'nano': dict(layer_norm=16_738_560, scan=18_612_480, bilinear=4_214_784, avg_pool=1_072_512),
    'micro': dict(layer_norm=22_318_080, scan=24_816_640, bilinear=5_619_712, avg_pool=1_430_016),
    'tiny': dict(layer_norm=41_756_160, scan=47_761_920, bilinear=10_838_016, avg_pool=2_747_136),
    'tiny-v3': dict(layer_norm=30_858_240, scan=29_149_440, nearest=1_655_808, avg_pool=1_693_440),
    'small-v3': dict(layer_norm=45_534_720, scan=46_272_000, nearest=2_634_240, avg_pool=2_671_872),
    'base-v3': dict(layer_norm=60_712_960, scan=61_696_000, nearest=3_512_320, avg_pool=3_562_496),
    'tiny-v0': dict(layer_norm=29_164_800, scan=1_920_737_280, avg_pool=37_632),
    'small-v0': dict(layer_norm=49_486_080, scan=3_492_249_600, avg_pool=37_632),
    'base-v0': dict(layer_norm=65_981_440, scan=4_656_332_800, avg_pool=50_176),
    'tiny-s2l5': dict(layer_norm=33_116_160, scan=108_380_160, avg_pool=37_632),
    'small-s2l15': dict(layer_norm=48_168_960, scan=168_591_360, avg_pool=37_632),
    'base-s2l15': dict(layer_norm=64_225_280, scan=224_788_480, avg_pool=50_176),
    'tiny-s1l8': dict(layer_norm=29_729_280, scan=63_221_760, avg_pool=37_632),
    'small-s1l20': dict(layer_norm=43_276_800, scan=99_348_480, avg_pool=37_632),
    'base-s1l20': dict(layer_norm=57_702_400, scan=132_464_640, avg_pool=50_176),
}
archs = pytest.mark.parametrize('arch', PUBLISHED)


def backbone(arch: str) -> HierarchicalBackbone:
    with torch.device('meta'):
        return published.backbone_class(arch)(arch)


def classifier(arch: str) -> torch.nn.Module:
    spec = backbone(arch).arch
    config = dict(
        type='ImageClassifier',
        backbone=dict(type=published.backbone_class(arch).__name__, arch=arch, out_indices=(3,)),
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
    full, half = (sum(len(group) for group in groups) for groups in (spec.full_routes, spec.half_routes))
    extra = 0
    for i, (depth, dim) in enumerate(zip(spec.depths, spec.dims, strict=True)):
        on_full = full * ceil(height / 4 / 2**i) * ceil(width / 4 / 2**i)
        on_half = half * ceil(height / 8 / 2**i) * ceil(width / 8 / 2**i)
        inner, rank = int(spec.ssm_ratio * dim), spec.rank(dim)
        to_scan = (rank + 2 * spec.d_state) * inner
        # here once for all routes of a group
        per_block = (on_half - on_half // max(half, 1)) * to_scan
        if spec.stem == 'patch':  # the code of the later families has convolutions there
            einsums = [n * macs for n in (on_full, on_half) for macs in (to_scan, rank * inner)]
            per_block += sum(map(rounded, einsums)) - sum(einsums)
        extra += depth * per_block
    return extra


@archs
def test_backbones_differ_from_the_authors_count_by_what_is_known(arch):
    model = backbone(arch)
    for shape, theirs in zip(SHAPES, PUBLISHED[arch], strict=False):
        total = count_flops(model, (1, 3, *shape)).total
        assert total == pytest.approx(theirs, rel=0.01)
        assert total + authors_extra(arch, *shape) == theirs, shape


@pytest.mark.parametrize('arch', ['nano', 'tiny-v3'])
def test_a_turned_image_takes_as_much(arch):
    model = backbone(arch)
    assert count_flops(model, (1, 3, 800, 1280)) == count_flops(model, (1, 3, 1280, 800))


@archs
def test_classifiers_differ_from_the_authors_count_by_what_is_known(arch):
    count = count_flops(classifier(arch), (1, 3, 224, 224))
    theirs = PUBLISHED[arch][-1]
    assert count.total == pytest.approx(theirs, rel=0.01)
    assert count.total + authors_extra(arch, 224, 224) == theirs
    assert {kind: count.by_operator[kind] for kind in PUBLISHED_BY_OPERATOR[arch]} == PUBLISHED_BY_OPERATOR[arch]
    assert set(count.by_operator) == {'conv', 'matmul', *PUBLISHED_BY_OPERATOR[arch]}
