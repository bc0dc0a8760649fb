"""The same two commands train, test and draw segmentors (mmseg) and classifiers (mmpretrain)."""

import cv2
import pytest

from mmmsvmamba.datasets.shapes_export import ShapesSpec, export_shapes
from mmmsvmamba.engine import cli

BACKBONE = "dict(type='MSVMamba', arch='nano', out_indices=(3,))"
SCHEDULE = """
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2))
log_processor = dict(by_epoch=False)
custom_imports = dict(imports=['mmmsvmamba'], allow_failed_imports=False)
"""
SEGMENTATION = f"""
_base_ = ['mmseg::_base_/default_runtime.py']
classes = ('background', 'disc', 'square', 'star', 'triangle')
palette = [(90, 90, 90), (230, 60, 60), (120, 200, 40), (40, 190, 220), (150, 70, 230)]
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[128.0] * 3, std=[60.0] * 3, bgr_to_rgb=True,
                           pad_val=0, seg_pad_val=255, size=(64, 64)),
    backbone={BACKBONE},
    decode_head=dict(type='FCNHead', in_channels=384, in_index=0, channels=16, num_convs=1, num_classes=len(classes),
                     norm_cfg=dict(type='BN'), align_corners=False, loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale_factor=1.0, keep_ratio=True)],
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations', reduce_zero_label=True)], [dict(type='PackSegInputs')]])]
dataset = dict(
    type='BaseSegDataset', data_root='data/nowhere', metainfo=dict(classes=classes, palette=palette),
    img_suffix='.png', seg_map_suffix='.png', reduce_zero_label=True,
    data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    pipeline=load + [dict(type='PackSegInputs')])
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dataset, sampler=dict(type='InfiniteSampler'))
val_dataloader = dict(batch_size=1, num_workers=0, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
{SCHEDULE}
"""
CLASSIFICATION = f"""
_base_ = ['mmpretrain::_base_/default_runtime.py']
model = dict(
    type='ImageClassifier', backbone={BACKBONE}, neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=4, in_channels=384, loss=dict(type='CrossEntropyLoss')))
data_preprocessor = dict(num_classes=4, mean=[128.0] * 3, std=[60.0] * 3, to_rgb=True)
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
dataset = dict(type='CustomDataset', data_root='data/nowhere', data_prefix='val', pipeline=pipeline)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dataset, sampler=dict(type='InfiniteSampler'))
val_dataloader = dict(batch_size=2, num_workers=0, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1,))
{SCHEDULE}
"""


@pytest.fixture(scope='module')
def layouts(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    export_shapes(folder, ShapesSpec(train=4, val=4, size=64, layouts=('ade', 'imagenet')))
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(capsys, config: str, data, *test_options: str) -> str:
    """Trains and tests with a config; returns what the test printed."""
    with open('config.py', 'w') as file:
        file.write(config)
    common = ['config.py', '--data-root', str(data), '--work-dir', 'run']
    code = cli.train(common)
    assert code == 0, capsys.readouterr().err
    # mmengine keeps visualizers by name for the life of a process
    renamed = ['--cfg-options', 'visualizer.name=test']
    code = cli.test([common[0], 'run/iter_2.pth', *common[1:], *test_options, *renamed])
    output = capsys.readouterr()
    assert code == 0, output.err
    return output.out


def test_segmentation(layouts, here, capsys):
    pytest.importorskip('mmseg')
    [data] = layouts.rglob('ADEChallengeData2016')
    output = commands(capsys, SEGMENTATION, data, '--show-dir', 'pictures', '--out', 'maps')
    assert 'mIoU' in output
    assert len(list((here / 'maps').glob('*.png'))) == 4
    pictures = list((here / 'pictures').rglob('*.png'))
    assert len(pictures) == 4
    height, width = cv2.imread(str(pictures[0])).shape[:2]
    assert width >= 2 * height  # ground truth beside prediction

    assert cli.test(['config.py', 'run/iter_2.pth', '--data-root', str(data), '--work-dir', 'run', '--tta']) == 0
    assert 'mIoU' in capsys.readouterr().out


def test_classification(layouts, here, capsys):
    pytest.importorskip('mmpretrain')
    output = commands(capsys, CLASSIFICATION, layouts / 'imagenet', '--show-dir', 'pictures', '--out', 'found.pkl')
    assert 'accuracy/top1' in output
    count = len(list((layouts / 'imagenet/val').rglob('*.png')))
    assert len(list((here / 'pictures').rglob('*.png'))) == count > 0
    assert (here / 'found.pkl').is_file()
    assert cli.test(['config.py', 'run/iter_2.pth', '--data-root', str(layouts / 'imagenet'), '--tta']) == 0


@pytest.mark.parametrize(
    'config, layout, head, count',
    [
        (SEGMENTATION, 'ade', 'model.decode_head', 5),
        (
            CLASSIFICATION.replace("'CustomDataset',", "'CustomDataset', classes=['a', 'b'],"),
            'imagenet',
            'model.head',
            2,
        ),
    ],
)
def test_class_count_does_not_fit(layouts, here, capsys, config, layout, head, count):
    pytest.importorskip('mmseg' if layout == 'ade' else 'mmpretrain')
    (here / 'config.py').write_text(config)
    data = {'ade': next(layouts.rglob('ADEChallengeData2016')), 'imagenet': layouts / 'imagenet'}[layout]
    options = ['--cfg-options', f'{head}.num_classes=7']
    assert cli.train(['config.py', '--data-root', str(data), '--work-dir', 'run', *options]) == 1
    assert f'The dataset has {count} classes' in (message := capsys.readouterr().err)
    assert f'{head}.num_classes = 7' in message
    assert not (here / 'run').exists()
