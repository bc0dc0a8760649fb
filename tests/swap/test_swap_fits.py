"""What a swap makes of configs of the libraries, against channels and strides written down by hand."""

import copy

import pytest
from mmengine.config import Config

from mmmsvmamba import MSVMamba, VMamba, swap_backbone
from mmmsvmamba.engine.errors import UserError
from mmmsvmamba.engine.options import read_config
from mmmsvmamba.swap import swap_with_changes
from mmmsvmamba.swap.changes import ABSENT
from mmmsvmamba.swap.probe import FeatureMap

NANO = [48, 96, 192, 384]

#: config, arch, and values by their path in the new one
CASES = {
    'Mask R-CNN': (
        'mmdet::mask_rcnn/mask-rcnn_r50-caffe_fpn_1x_coco.py',
        'tiny',
        {
            'model.backbone.arch': 'tiny',
            'model.backbone.out_indices': (0, 1, 2, 3),
            'model.neck.in_channels': [96, 192, 384, 768],
            'model.neck.out_channels': 256,
            'model.roi_head.bbox_head.in_channels': 256,
            'model.data_preprocessor.mean': [123.675, 116.28, 103.53],  # caffe: BGR, no deviation
            'model.data_preprocessor.std': [58.395, 57.12, 57.375],
            'model.data_preprocessor.bgr_to_rgb': True,
        },
    ),
    'DINO': (
        'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
        'nano',
        {'model.backbone.out_indices': (1, 2, 3), 'model.neck.in_channels': [96, 192, 384]},
    ),
    'RTMDet-Ins': (
        'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
        'nano',
        {
            'model.backbone.out_indices': (1, 2, 3),
            'model.neck.in_channels': [96, 192, 384],
            'model.neck.out_channels': 96,
            'model.bbox_head.in_channels': 96,
            'model.data_preprocessor.bgr_to_rgb': True,
        },
    ),
    'Mask2Former': (
        'mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py',
        'nano',
        {'model.panoptic_head.in_channels': NANO, 'model.panoptic_head.strides': [4, 8, 16, 32]},
    ),
    'DETR': (
        'mmdet::detr/detr_r50_8xb2-150e_coco.py',
        'nano',
        {'model.backbone.out_indices': (3,), 'model.neck.in_channels': [384]},
    ),
    'YOLOv3': (
        'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py',
        'nano',
        {'model.backbone.out_indices': (1, 2, 3), 'model.neck.in_channels': [384, 192, 96]},
    ),
    'strides of 64': (
        'mmdet::rtmdet/rtmdet_x_p6_4xb8-300e_coco.py',
        'tiny',
        {
            'model.backbone.out_indices': (0, 1, 2, 3),
            'model.backbone.out_strides': (8, 16, 32, 64),
            'model.neck.in_channels': [96, 192, 384, 768],
        },
    ),
    'YOLOF': ('mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py', 'nano', {'model.neck.in_channels': 384}),
    'YOLOX': (
        'mmdet::yolox/yolox_s_8xb8-300e_coco.py',
        'nano',
        {'model.neck.in_channels': [96, 192, 384], 'model.data_preprocessor.mean': [123.675, 116.28, 103.53]},
    ),
    'SSD': (
        'mmdet::ssd/ssd300_coco.py',
        'nano',
        {
            'model.backbone.out_indices': (1, 2),
            'model.neck.in_channels': (96, 192),
            'model.neck.out_channels': (96, 192, 512, 256, 256, 256),
            'model.bbox_head.in_channels': (96, 192, 512, 256, 256, 256),
        },
    ),
    'C4': (
        'mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py',
        'nano',
        {
            'model.backbone.out_indices': (2,),
            'model.neck.type': 'ChannelMapper',
            'model.neck.in_channels': [192],
            'model.neck.out_channels': 1024,
            'model.roi_head.bbox_head.in_channels': 2048,
        },
    ),
    'DC5': (
        'mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py',
        'nano',
        {'model.backbone.out_indices': (3,), 'model.backbone.out_strides': (16,), 'model.neck.in_channels': [384]},
    ),
    'CornerNet': (
        'mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py',
        'nano',
        {
            'model.neck.type': 'CTResNetNeck',
            'model.neck.in_channels': 384,
            'model.neck.num_deconv_filters': (256, 256, 256),
            'model.bbox_head.num_feat_levels': 1,
            'model.bbox_head.in_channels': 256,
        },
    ),
    'a detector inside a tracker': (
        'mmdet::qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base.py',
        'nano',
        {'model.detector.backbone.type': 'MSVMamba', 'model.detector.neck.in_channels': NANO},
    ),
    'UperNet': (
        'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        'micro',
        {'model.decode_head.in_channels': [64, 128, 256, 512], 'model.auxiliary_head.in_channels': 256},
    ),
    'DeepLabV3+': (
        'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        'nano',
        {
            'model.backbone.out_strides': (4, 8, 8, 8),
            'model.decode_head.in_channels': 384,
            'model.decode_head.c1_in_channels': 48,
            'model.auxiliary_head.in_channels': 192,
        },
    ),
    'SegFormer': (
        'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
        'nano',
        {'model.decode_head.in_channels': NANO, 'model.decode_head.channels': 256},
    ),
    'OCRNet': (
        'mmseg::ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024.py',
        'nano',
        {
            'model.decode_head.0.in_channels': NANO,
            'model.decode_head.1.in_channels': NANO,
            'model.decode_head.0.channels': 270,
        },
    ),
    'UNet': (
        'mmseg::unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py',
        'nano',
        {
            'model.neck.type': 'FPN',
            'model.neck.in_channels': NANO,
            'model.decode_head.in_channels': 256,
            'model.decode_head.in_index': 0,
        },
    ),
    'K-Net': (
        'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
        'nano',
        {
            'model.decode_head.kernel_generate_head.in_channels': 384,
            'model.decode_head.kernel_generate_head.channels': 512,
            'model.auxiliary_head.in_channels': 192,
        },
    ),
    'CGNet': (
        'mmseg::cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680.py',
        'nano',
        {
            'model.backbone.out_strides': (2, 4, 8),
            'model.decode_head.in_channels': 384,
            'model.decode_head.channels': 384,
        },
    ),
    'LRASPP': (
        'mmseg::mobilenet_v3/mobilenet-v3-d8_lraspp_4xb4-320k_cityscapes-512x1024.py',
        'nano',
        {'model.backbone.out_indices': (0, 1, 3), 'model.backbone.out_strides': (2, 4, 8)},
    ),
    'a classifier': (
        'mmpretrain::resnet/resnet50_8xb32_in1k.py',
        'base-v3',
        {'model.head.in_channels': 1024, 'model.backbone.out_indices': (3,), 'data_preprocessor.to_rgb': True},
    ),
    'a classifier of tokens': (
        'mmpretrain::deit/deit-tiny_4xb256_in1k.py',
        'nano',
        {
            'model.neck.type': 'GlobalAveragePooling',
            'model.head.type': 'LinearClsHead',
            'model.head.in_channels': 384,
            'model.head.num_classes': 1000,
        },
    ),
    'a backbone with logits of its own': (
        'mmpretrain::vgg/vgg16_8xb16_voc.py',
        'nano',
        {
            'model.head.type': 'MultiLabelLinearClsHead',
            'model.head.num_classes': 20,
            'model.head.in_channels': 384,
        },
    ),
    'averaged tokens': (
        'mmpretrain::efficientformer/efficientformer-l1_8xb128_in1k.py',
        'nano',
        {'model.neck.dim': 2, 'model.head.type': 'LinearClsHead', 'model.head.in_channels': 384},
    ),
    'HRNet with fused scales': (
        'mmpretrain::hrnet/hrnet-w18_4xb32_in1k.py',
        'nano',
        {'model.neck.0.in_channels': tuple(NANO), 'model.head.in_channels': 2048},
    ),
}


#: The maps of a ResNet-50, so that it is not built for every test.
RESNET = [FeatureMap(256 * 2**i, 4 * 2**i) for i in range(4)]


def swap(cfg: Config, arch, **options) -> Config:
    return swap_with_changes(cfg, arch, probe=lambda backbone, scope, path: RESNET, **options)[0]


def without_scopes(part):
    if isinstance(part, dict):
        return {key: without_scopes(value) for key, value in part.items() if key != '_scope_'}
    return part


def value_at(cfg: Config, path: str):
    for key in path.split('.'):
        cfg = cfg[int(key)] if key.isdecimal() else cfg[key]
    return cfg


@pytest.mark.parametrize('name', CASES)
def test_fits(name):
    config, arch, expected = CASES[name]
    pytest.importorskip(config.partition('::')[0])
    cfg = read_config(config, None)
    before = copy.deepcopy(cfg.to_dict())
    swapped = swap_backbone(cfg, arch)
    assert cfg.to_dict() == before
    assert {path: value_at(swapped, path) for path in expected} == expected
    assert 'mmmsvmamba' in swapped.custom_imports.imports
    assert swapped.get('load_from') is None and swapped.model.get('pretrained') is None


def mask_rcnn() -> Config:
    return read_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', None)


def test_tells_each_change_and_no_other():
    cfg = mask_rcnn()
    cfg.load_from = 'old.pth'
    swapped, changes = swap_with_changes(cfg, 'nano', pretrained=None)
    for change in changes:
        assert change.why and (change.before != change.after)
        assert value_at(swapped, change.path) == change.after
    undone = swapped.to_dict()
    for change in reversed(changes):
        *parents, key = change.path.split('.')
        node = value_at(undone, '.'.join(parents)) if parents else undone
        if change.before is ABSENT:
            del node[key]
        else:
            node[key] = change.before
    assert undone == cfg.to_dict()


def test_weights():
    published = swap(mask_rcnn(), 'tiny-v3').model.backbone
    assert published.init_cfg.checkpoint.endswith('msvmambav3_tiny_224.pth')
    assert published.drop_path_rate == 0.2
    assert 'init_cfg' not in swap(mask_rcnn(), 'tiny', pretrained=None).model.backbone
    own = swap(mask_rcnn(), 'tiny', pretrained='/weights/own.pth', drop_path_rate=0.4).model.backbone
    assert own.init_cfg.checkpoint == '/weights/own.pth' and own.drop_path_rate == 0.4


@pytest.mark.parametrize('arch', [*MSVMamba.arch_settings, *VMamba.arch_settings])
def test_published_weights_are_those_of_our_configs(arch):
    if arch.endswith('s1l20'):  # without a published detector
        backbone = swap(mask_rcnn(), arch).model.backbone
        ours = read_config(f'configs/vmamba_{arch[0]}_s1l20_in1k.py', None)
        assert backbone.init_cfg.checkpoint == ours.published
        assert backbone.drop_path_rate == ours.model.backbone.drop_path_rate
        return
    letter = {'nano': 'n', 'micro': 'm'}.get(
        arch, arch[0] + arch.removeprefix(arch.partition('-')[0]).replace('-', '_')
    )
    family = 'msvmamba' if arch in MSVMamba.arch_settings else 'vmamba'
    ours = read_config(f'configs/mask_rcnn_{family}_{letter}_1x.py', None)
    swapped = swap(mask_rcnn(), arch)
    assert swapped.model.backbone.to_dict() == ours.model.backbone.to_dict()
    assert swapped.get('pretrained_source') == ours.get('pretrained_source')


def test_a_dict_of_a_vmamba_is_a_vmamba():
    backbone = swap(mask_rcnn(), dict(base='tiny-s1l8', depths=[1, 1, 1, 1]), pretrained=None).model.backbone
    assert backbone.type == 'VMamba'


def test_recipe():
    ours = read_config('configs/mask_rcnn_msvmamba_t_1x.py', None)
    swapped = swap(mask_rcnn(), 'tiny', recipe=True)
    assert without_scopes(swapped.optim_wrapper) == without_scopes(ours.optim_wrapper)
    assert swapped.auto_scale_lr.to_dict() == ours.auto_scale_lr.to_dict()
    kept = swap(mask_rcnn(), 'tiny')
    assert kept.optim_wrapper.to_dict() == mask_rcnn().optim_wrapper.to_dict()
    segmentor = read_config('mmseg::fcn/fcn_r50-d8_4xb4-160k_ade20k-512x512.py', None)
    ours = read_config('configs/upernet_msvmamba_t_160k_ade20k.py', None)
    swapped = swap_backbone(segmentor, 'tiny', recipe=True)
    for key in ('optimizer', 'paramwise_cfg'):
        assert swapped.optim_wrapper[key] == ours.optim_wrapper[key]


def test_an_optimizer_that_knows_the_old_layers_is_replaced():
    cfg = read_config('mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py', None)
    assert cfg.optim_wrapper.constructor == 'LearningRateDecayOptimizerConstructor'
    swapped = swap_backbone(cfg, 'tiny')
    assert 'constructor' not in swapped.optim_wrapper
    assert 'decay_rate' not in swapped.optim_wrapper.paramwise_cfg
    assert swapped.optim_wrapper.type == 'AmpOptimWrapper'


def test_random_numbers_go_on_as_without_a_swap():
    import torch

    cfg = mask_rcnn()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    swap_backbone(cfg, 'nano')
    assert torch.equal(torch.rand(3), expected)


def drop_backbone(cfg: Config) -> None:
    del cfg.model.backbone


#: An edit of the config, the arch, what the error says.
BAD = [
    (lambda cfg: cfg.pop('model'), 'tiny', 'has no model'),
    (drop_backbone, 'tiny', 'no backbone: neither model.backbone nor model.detector.backbone.*MaskRCNN'),
    (lambda cfg: None, 'tinny', "unknown arch 'tinny' .did you mean 'tiny'"),
    (lambda cfg: cfg.pop('default_scope'), 'tiny', 'names no library'),
    (lambda cfg: cfg.update(default_scope='mmnowhere'), 'tiny', 'mmnowhere, which is not installed'),
    (lambda cfg: cfg.model.neck.update(in_channels=[1, 2]), 'tiny', r'model.neck.in_channels is \[1, 2\].*by hand'),
    (lambda cfg: cfg.model.backbone.update(depth=51), 'tiny', 'model.backbone of the given config does not work'),
    (lambda cfg: cfg.model.backbone.update(type='Nothing'), 'tiny', 'model.backbone.*Nothing'),
    (lambda cfg: cfg.model.backbone.update(type='MSVMamba'), 'tiny', 'is MSVMamba already'),
    (lambda cfg: cfg.model.roi_head.update(type='TridentRoIHead'), 'tiny', 'model.roi_head is a.*three branches'),
    (lambda cfg: cfg.model.neck.update(type='RFP'), 'tiny', 'model.neck is a RFP'),
    (lambda cfg: None, dict(base='tiny', depths=[1, 1, 1, 1]), 'no published weights for arch'),
]


@pytest.mark.parametrize('edit, arch, said', BAD, ids=[said[:30] for _, _, said in BAD])
def test_bad_input(edit, arch, said):
    cfg = mask_rcnn()
    edit(cfg)
    with pytest.raises(UserError, match=f'(?s){said}'):
        swap_backbone(cfg, arch)
