"""The three lines of the README in a project of somebody else: stock configs, stock tools, a folder far from this one.

The tools are those that `mim train` runs.
"""

import importlib
import json
import re
from importlib import metadata
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from tiny_data import run_tool

from mmmsvmamba.datasets.shapes_export import ShapesSpec, export_shapes

pytestmark = pytest.mark.slow

IMPORTS = "custom_imports = dict(imports=['mmmsvmamba'], allow_failed_imports=False)"
DETECTOR = """
model = dict(
    backbone=dict(_delete_=True, type='MSVMamba', arch='nano'),
    neck=dict(in_channels=[48, 96, 192, 384]))
"""
SEGMENTOR = """
model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, type='MSVMamba', arch='nano'),
    decode_head=dict(in_channels=[48, 96, 192, 384]),
    auxiliary_head=dict(in_channels=192))
"""
CLASSIFIER = """
model = dict(
    backbone=dict(_delete_=True, type='MSVMamba', arch='nano', out_indices=(3,)),
    head=dict(in_channels=384))
"""
COMMON = [
    'default_hooks.logger.interval=1',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'train_dataloader.dataset.indices=4',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'val_dataloader.dataset.indices=1',
]
#: Two iterations of two small pictures, evaluated on one.
EPOCH = [*COMMON, 'train_cfg.max_epochs=1']
SMALL_BOXES = [
    f'{loader}_dataloader.dataset.pipeline.{step}.scale=(64,64)' for loader, step in [('train', 2), ('val', 1)]
]
SMALL_MAPS = [
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'train_dataloader.dataset.img_suffix=.png',
    'val_dataloader.dataset.img_suffix=.png',
    'model.data_preprocessor.size=(64,64)',
    'train_dataloader.dataset.pipeline.2.scale=(128,64)',
    'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
    'val_dataloader.dataset.pipeline.1.scale=(128,64)',
    'model.decode_head.channels=32',
    # the norm of the stock config is for several GPUs
    'model.decode_head.norm_cfg.type=BN',
    'model.auxiliary_head.norm_cfg.type=BN',
]
SMALL_PICTURES = [
    'train_dataloader.dataset.pipeline.1.scale=64',
    'val_dataloader.dataset.pipeline.1.scale=64',
    'val_dataloader.dataset.pipeline.2.crop_size=64',
]
#: Library -> stock config, lines, options for small data, what is printed after the evaluation.
PROJECTS = {
    'mmdet': ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', DETECTOR, EPOCH + SMALL_BOXES, 'Epoch(val)'),
    'mmseg': ('upernet/upernet_r50_4xb4-80k_ade20k-512x512.py', SEGMENTOR, COMMON + SMALL_MAPS, 'mIoU'),
    'mmpretrain': ('resnet/resnet18_8xb32_in1k.py', CLASSIFIER, EPOCH + SMALL_PICTURES, 'accuracy/top1'),
}


@pytest.fixture(scope='module')
def project(tmp_path_factory) -> Path:
    """A folder whose data lie where the stock configs look for them, in their layouts and with their class names."""
    folder = tmp_path_factory.mktemp('foreign')
    export_shapes(folder / 'shapes', ShapesSpec(train=4, val=2, size=64, layouts=('coco', 'ade', 'imagenet')))
    data = folder / 'data'
    (data / 'ade').mkdir(parents=True)
    (folder / 'shapes/coco').rename(data / 'coco')
    (folder / 'shapes/ADEChallengeData2016').rename(data / 'ade/ADEChallengeData2016')
    (folder / 'shapes/imagenet').rename(data / 'imagenet')
    for file in (data / 'coco/annotations').glob('instances_*.json'):
        annotations = json.loads(file.read_text())
        names = CocoDataset.METAINFO['classes']
        annotations['categories'] = [dict(id=i, name=name) for i, name in enumerate(names, 1)]
        file.write_text(json.dumps(annotations))
    (data / 'imagenet/meta').mkdir()
    for split in ('train', 'val'):
        pictures = sorted((data / 'imagenet' / split).rglob('*.png'))
        lines = [f'{path.relative_to(data / "imagenet" / split)} {i}' for i, path in enumerate(pictures)]
        (data / f'imagenet/meta/{split}.txt').write_text('\n'.join(lines))
    return folder


def stock(library: str) -> Path:
    """What a library brings for `mim`: its configs and tools."""
    folder = Path(importlib.import_module(library).__file__).parent / '.mim'
    if not (folder / 'tools/train.py').is_file():
        pytest.skip(f'{library} was installed without its tools')
    return folder


def base(library: str, name: str) -> str:
    """A stock config as `_base_` names it. mmengine finds `mmseg::` under the original distribution's name alone."""
    brought_by = metadata.packages_distributions()[library]
    is_found = library != 'mmseg' or 'mmsegmentation' in brought_by
    return f'{library}::{name}' if is_found else str(stock(library) / 'configs' / name)


@pytest.mark.parametrize('library', PROJECTS)
def test_stock_tool_trains_a_stock_config(project, library):
    name, lines, options, evaluated = PROJECTS[library]
    (project / f'{library}.py').write_text(f"_base_ = ['{base(library, name)}']\n{IMPORTS}{lines}")
    tool = stock(library) / 'tools/train.py'
    run = run_tool(tool, f'{library}.py', '--cfg-options', *options, cwd=project)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert re.search(r'\(train\) .*\[2/2\]', run.stdout) and evaluated in run.stdout
    assert list((project / 'work_dirs' / library).glob('*.pth'))
