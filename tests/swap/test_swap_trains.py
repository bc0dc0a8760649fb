"""Swapped configs of the libraries train: ten iterations on two scenes of the shapes, after which the loss is lower."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from tiny_data import ade_shapes, shapes  # noqa: F401  fixtures

from mmmsvmamba import swap_backbone
from mmmsvmamba.engine.options import read_config

pytestmark = pytest.mark.slow

DETECTORS = {
    'Mask R-CNN': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'DINO': 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'RTMDet-Ins': 'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
    'Mask2Former': 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
}
SEGMENTORS = {
    'UperNet': 'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    'DeepLabV3+': 'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py',
    'SegFormer': 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'Mask2Former': 'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
}
ITERATIONS = 10
#: A small MSVMamba without stochastic depth, which would hide ten steps of progress.
SMALL = dict(arch=dict(base='nano', depths=[1, 1, 1, 1], dims=24), pretrained=None)


#: Numbers of candidates and samples, which have nothing to do with the backbone: few, to be quick.
FEWER = dict(num_queries=40, num_points=256, nms_pre=100, max_per_img=40, num_dn_queries=10, num_layers=2)


def shrink(part, classes: int) -> None:
    """Sets the number of classes, and fewer candidates and samples, wherever a model names them."""
    if isinstance(part, dict):
        for key in part:
            if key in ('num_classes', 'num_things_classes'):
                part[key] = classes
            elif key == 'num_stuff_classes':
                part[key] = 0
            elif key == 'class_weight' and isinstance(part[key], list):
                part[key] = [1.0] * classes + [0.1]
            elif key in FEWER and part[key]:
                part[key] = FEWER[key]
            elif key == 'sampler' and 'num' in part[key]:
                part[key]['num'] = 32
    for value in part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ():
        shrink(value, classes)


def losses_of(config: str, shapes_config: str, data_root: Path, classes: int, work_dir: Path, lr: float) -> list[float]:
    cfg = swap_backbone(read_config(config, None), **SMALL)
    ours = read_config(shapes_config, None)
    shrink(cfg.model, classes)
    preprocessor = cfg.model.data_preprocessor
    preprocessor.pop('batch_augments', None)
    if 'size' in preprocessor:
        preprocessor.size = (64, 64)
    loader = ours.train_dataloader.to_dict()
    loader['dataset'].update(data_root=str(data_root), indices=2)
    loader['dataset']['pipeline'] = [t for t in loader['dataset']['pipeline'] if 'Flip' not in t['type']]
    loader.update(batch_size=2, num_workers=0, persistent_workers=False, sampler=dict(type='InfiniteSampler'))
    cfg = Config(
        dict(
            model=cfg.model,
            default_scope=cfg.default_scope,
            train_dataloader=loader,
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=ITERATIONS, val_interval=100),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=lr), clip_grad=dict(max_norm=1.0)),
            default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None),
            randomness=dict(seed=0),
            work_dir=str(work_dir),
            log_level='ERROR',
            experiment_name=work_dir.name,
        )
    )
    init_default_scope(cfg.default_scope)
    runner = Runner.from_cfg(cfg)
    # batch statistics of two tiny images are noise
    for module in runner.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    runner.train()
    history, _ = runner.message_hub.get_scalar('train/loss').data
    return list(history)


def check_falls(losses: list[float]) -> None:
    assert len(losses) == ITERATIONS
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3]), losses


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors(name, shapes, tmp_path):  # noqa: F811
    config = 'configs/mask_rcnn_msvmamba_n_shapes.py'
    check_falls(losses_of(DETECTORS[name], config, shapes, 4, tmp_path, lr=1e-3))


@pytest.mark.parametrize('name', SEGMENTORS)
def test_segmentors(name, ade_shapes, tmp_path):  # noqa: F811
    config = 'configs/upernet_msvmamba_n_shapes.py'
    check_falls(losses_of(SEGMENTORS[name], config, ade_shapes, 5, tmp_path, lr=1e-3))
