"""The sweep over the libraries' configs: two dozen of them, and what it keeps and writes."""

import importlib.util
import json
import sys

import pytest
from tiny_data import REPOSITORY

SAMPLE = [
    'mmdet/atss/atss_r50_fpn_1x_coco.py',
    'mmdet/gfl/gfl_r50_fpn_1x_coco.py',
    'mmdet/retinanet/retinanet_r18_fpn_1x_coco.py',
    'mmdet/fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'mmdet/hrnet/fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco.py',
    'mmdet/yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
    'mmdet/yolox/yolox_tiny_8xb8-300e_coco.py',
    'mmdet/rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'mmdet/pvt/retinanet_pvt-t_fpn_1x_coco.py',
    'mmdet/nas_fcos/nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco.py',
    'mmdet/solo/decoupled-solo_r50_fpn_1x_coco.py',
    'mmdet/detr/detr_r50_8xb2-150e_coco.py',
    'mmdet/reid/reid_r50_8xb32-6e_mot17train80_test-mot17val20.py',
    'mmseg/fcn/fcn_r50-d8_4xb4-160k_ade20k-512x512.py',
    'mmseg/deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py',
    'mmseg/hrnet/fcn_hr18_4xb4-160k_ade20k-512x512.py',
    'mmseg/segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'mmseg/unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py',
    'mmseg/mobilenet_v3/mobilenet-v3-d8_lraspp_4xb4-320k_cityscapes-512x1024.py',
    'mmseg/fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py',
    'mmseg/sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py',
    'mmpretrain/resnet/resnet18_8xb32_in1k.py',
    'mmpretrain/hrnet/hrnet-w18_4xb32_in1k.py',
    'mmpretrain/levit/levit-128s_8xb256_in1k.py',
]


@pytest.fixture(scope='module')
def tools():
    """The modules of the sweep by name."""
    folder = REPOSITORY / 'tools/dev'
    sys.path.insert(0, str(folder))
    try:
        yield {name: importlib.import_module(name) for name in ('sweep_zoo', 'zoo_trial', 'zoo_table')}
    finally:
        sys.path.remove(str(folder))


def test_two_dozen():
    assert len(set(SAMPLE)) == 24


@pytest.mark.slow
@pytest.mark.parametrize('name', SAMPLE)
def test_model_builds_predicts_and_learns(name, tools, tmp_path, monkeypatch):
    sweep, trial = tools['sweep_zoo'], tools['zoo_trial']
    monkeypatch.setattr(sweep, 'PROBES', tmp_path)
    library, _, path = name.partition('/')
    if not (sweep.config_root(library) / path).is_file():
        pytest.skip(f'the installed {library} does not ship {path}')
    found = sweep.swap(sweep.read((library, path)))
    assert 'refused' not in found, found
    result = trial.try_model(found['model'], found['preprocessor'], found['scope'])
    assert result.passed, result.reason


def test_a_trial_tells_where_a_model_fails(tools):
    trial = tools['zoo_trial']
    sweep = tools['sweep_zoo']
    found = sweep.swap(sweep.read(('mmdet', 'retinanet/retinanet_r18_fpn_1x_coco.py')))
    found['model']['neck']['in_channels'] = [48, 96, 192, 100]
    result = trial.try_model(found['model'], found['preprocessor'], 'mmdet', [64])
    assert result.builds and not result.forward and not result.loss
    assert result.reason.startswith('forward: RuntimeError: ')
    found['model']['neck']['in_channels'] = 3
    assert trial.try_model(found['model'], None, 'mmdet').reason.startswith('builds: ')


def test_configs_that_are_no_part_of_the_table(tools):
    sweep = tools['sweep_zoo']
    assert 'is a VisionTransformer' in sweep.read(('mmpretrain', 'deit/deit-tiny_4xb256_in1k.py'))['skipped']
    assert sweep.read(('mmdet', 'common/ms_3x_coco.py'))['skipped'] == 'describes no model'
    one, same, other = (
        sweep.read(('mmdet', f'mask_rcnn/mask-rcnn_{name}_coco.py'))['own_key']
        for name in ('r50_fpn_1x', 'r50_fpn_2x', 'r101_fpn_1x')
    )
    assert one == same != other


def test_refused_configs_say_why(tools):
    sweep = tools['sweep_zoo']
    found = sweep.swap(sweep.read(('mmdet', 'tridentnet/tridentnet_r50-caffe_1x_coco.py')))
    assert found['refused'].startswith('refused: model.roi_head is a TridentRoIHead')
    assert 'model' not in found


def test_goes_on_from_what_was_found(tools, tmp_path):
    file = tmp_path / 'found.jsonl'
    assert tools['sweep_zoo'].load_results(file, only_passed=False) == {}
    passed = dict(builds=True, forward=True, loss=True, reason='', own='')
    failed = passed | dict(loss=False, reason='loss: it is nan')
    lines = [
        dict(key='a', config='x', **failed),
        dict(key='a', config='x', **passed),
        dict(key='b', config='y', **failed),
    ]
    file.write_text('\n'.join(map(json.dumps, lines)))
    assert tools['sweep_zoo'].load_results(file, only_passed=False) == {'a': passed, 'b': failed}
    assert tools['sweep_zoo'].load_results(file, only_passed=True) == {'a': passed}


def test_the_page_counts_refusals_as_failures(tools):
    passed = dict(builds=True, forward=True, loss=True, reason='', own='')
    results = [
        passed | dict(name='mmdet/dino/a.py', library='mmdet'),
        passed | dict(name='mmdet/dino/b.py', library='mmdet', loss=False, reason='loss: a|b', own='loss: c'),
        dict(
            name='mmdet/rfp/c.py',
            library='mmdet',
            builds=False,
            forward=False,
            loss=False,
            reason='refused: no',
            own='',
        ),
    ]
    prepared = [dict(library='mmdet', key=str(i)) for i in range(4)] + [dict(library='mmdet', skipped='no model')]
    page = tools['zoo_table'].page(prepared, results, 'With versions.')
    assert '| mmdet | 5 | 4 | 3 | 2 | 2 | 1 of 3 (33.3%) | 1 of 2 (50.0%) |' in page
    assert '| dino | 2 | 2 | 2 | 1 | loss: a\\|b (own too) |' in page
    assert '| rfp | 1 | 0 | 0 | 0 | refused: no |' in page
