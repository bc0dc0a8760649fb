"""Options of train.py and test.py: what each changes in the config, and when it is refused."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tiny_data import COCO_CONFIG, SHAPES_CONFIG

from mmmsvmamba.engine import options, testing
from mmmsvmamba.engine.errors import UserError
from mmmsvmamba.engine.scopes import SCOPES, scope_of


@pytest.fixture
def cfg() -> Config:
    return Config.fromfile(COCO_CONFIG)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)


def test_config_path_works_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = options.read_config('configs/mask_rcnn_msvmamba_n_1x.py', {'optim_wrapper.optimizer.lr': 0.5})
    assert cfg.model.backbone.arch == 'nano' and cfg.optim_wrapper.optimizer.lr == 0.5
    # the current folder comes first
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/mask_rcnn_msvmamba_n_1x.py').write_text('mine = True')
    assert options.read_config('configs/mask_rcnn_msvmamba_n_1x.py', None).mine


def test_missing_config_and_missing_base(tmp_path):
    with pytest.raises(UserError, match='no config file configs/nano.py .* configs/ has .*mask_rcnn_msvmamba_n_1x.py'):
        options.read_config('configs/nano.py', None)
    (tmp_path / 'child.py').write_text("_base_ = ['gone.py']")
    with pytest.raises(UserError, match='child.py is based on a file that is missing'):
        options.read_config(str(tmp_path / 'child.py'), None)


def test_work_dir(cfg):
    options.set_work_dir(cfg, None)
    assert cfg.work_dir == 'work_dirs/mask_rcnn_msvmamba_n_1x'
    options.set_work_dir(cfg, 'there')
    options.set_work_dir(cfg, None)
    assert cfg.work_dir == 'there'


def test_amp(cfg, gpu):
    options.set_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and cfg.optim_wrapper.loss_scale == 'dynamic'
    cfg.optim_wrapper.type = 'OptimWrapperDict'
    with pytest.raises(UserError, match='has OptimWrapperDict'):
        options.set_amp(cfg)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_amp_needs_a_gpu(cfg):
    with pytest.raises(UserError, match='--amp needs a GPU'):
        options.set_amp(cfg)


def test_auto_scale_lr(cfg):
    options.set_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16)
    cfg.pop('auto_scale_lr')
    with pytest.raises(UserError, match='auto_scale_lr = dict'):
        options.set_auto_scale_lr(cfg)


def test_resume(cfg, tmp_path):
    cfg.work_dir = str(tmp_path)
    cfg.load_from = 'coco.pth'
    options.set_resume(cfg, 'auto')  # nothing saved yet: starts anew
    assert cfg.resume and cfg.load_from is None
    saved = tmp_path / 'epoch_1.pth'
    saved.write_bytes(b'')
    (tmp_path / 'last_checkpoint').write_text(str(saved))
    options.set_resume(cfg, 'auto')
    assert cfg.load_from == str(saved)
    with pytest.raises(UserError, match='--resume gone.pth: there is no such file'):
        options.set_resume(cfg, 'gone.pth')


@pytest.mark.parametrize('named', ['', 'epoch_2.pth'])
def test_resume_from_a_pointer_to_nothing(cfg, tmp_path, named):
    cfg.work_dir = str(tmp_path)
    (tmp_path / 'last_checkpoint').write_text(named)
    (tmp_path / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(UserError, match=f'names {named or "no file"} as the last .*{tmp_path / "epoch_1.pth"}'):
        options.set_resume(cfg, 'auto')


def test_pretrained_and_from_scratch(cfg):
    assert options.pretrained_files(cfg) == ['checkpoints/vssm_nano_ms_e300.pth']
    options.set_pretrained(cfg, 'mine.pth')
    cfg.load_from = 'coco.pth'
    assert options.pretrained_files(cfg) == ['mine.pth', 'coco.pth']
    options.drop_pretrained(cfg)
    assert options.pretrained_files(cfg) == []
    options.set_pretrained(cfg, 'mine.pth')  # a backbone that had none
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='mine.pth')
    with pytest.raises(UserError, match='neither a backbone nor an init_cfg'):
        options.set_pretrained(Config(dict(model=dict(type='Own'))), 'mine.pth')


def test_scope(cfg):
    assert scope_of(cfg).task == 'detection'
    cfg.default_scope = 'mmocr'
    with pytest.raises(UserError, match="default_scope = 'mmocr'; these tools run mmdet, mmseg, mmpretrain"):
        scope_of(cfg)


def test_tta_of_masks_is_refused(cfg):
    before = cfg.pretty_text
    with pytest.raises(UserError, match='TTA of instance segmentation does not support now'):
        testing.set_tta(cfg, SCOPES['mmdet'])
    assert cfg.pretty_text == before


def test_tta_of_boxes_flips(cfg):
    cfg.model.roi_head.mask_head = None
    steps = [step['type'] for step in cfg.test_dataloader.dataset.pipeline]
    testing.set_tta(cfg, SCOPES['mmdet'])
    assert cfg.model.type == 'DetTTAModel' and cfg.model.module.type == 'MaskRCNN'
    *kept, tta = cfg.test_dataloader.dataset.pipeline
    assert [step['type'] for step in kept] == steps[:-1]
    flips, [pack] = tta['transforms']
    assert [flip['prob'] for flip in flips] == [1.0, 0.0]
    assert pack['type'] == steps[-1] and {'flip', 'flip_direction'} <= set(pack['meta_keys'])


def test_tta_of_segmentation_follows_the_config():
    cfg = Config(
        dict(
            model=dict(type='EncoderDecoder'),
            tta_model=dict(type='MySegTTAModel'),
            tta_pipeline=[dict(type='TestTimeAug')],
            test_dataloader=dict(dataset=dict(pipeline=[dict(type='PackSegInputs')])),
        )
    )
    testing.set_tta(cfg, SCOPES['mmseg'])
    assert cfg.model == dict(type='MySegTTAModel', module=dict(type='EncoderDecoder'))
    assert cfg.test_dataloader.dataset.pipeline == [dict(type='TestTimeAug')]
    cfg.pop('tta_model')
    with pytest.raises(UserError, match='no tta_model and tta_pipeline'):
        testing.set_tta(cfg, SCOPES['mmseg'])


def test_tta_reaches_the_parts_of_a_joined_data_set():
    part = dict(type='CustomDataset', pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')])
    joined = dict(type='ConcatDataset', datasets=[part, dict(type='RepeatDataset', times=1, dataset=part)])
    cfg = Config(dict(model=dict(type='ImageClassifier'), test_dataloader=dict(dataset=joined)))
    testing.set_tta(cfg, SCOPES['mmpretrain'])
    first, second = cfg.test_dataloader.dataset.datasets
    assert [step.type for step in first.pipeline] == ['LoadImageFromFile', 'TestTimeAug']
    assert second.dataset.pipeline == first.pipeline


def test_tests_do_without_the_hook_that_averages():
    """Unless the weights themselves are to be evaluated."""
    themselves = dict(type='EMAHook', evaluate_on_ema=False)
    other = dict(type='NumClassCheckHook')
    cfg = Config(dict(custom_hooks=[dict(type='EMAHook', evaluate_on_origin=True), other, themselves]))
    testing.drop_averaging(cfg)
    assert cfg.custom_hooks == [other, themselves]
    testing.drop_averaging(Config(dict()))


@pytest.mark.parametrize('scope', SCOPES)
def test_drawing_is_wired_for_each_library(scope, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config(dict(model=dict()))
    testing.set_drawing(cfg, SCOPES[scope], show=False, show_dir='pictures', wait_time=1)
    hook = cfg.default_hooks.visualization
    folder = {
        'mmdet': lambda: hook.test_out_dir,
        'mmseg': lambda: cfg.visualizer.save_dir,
        'mmpretrain': lambda: hook.out_dir,
    }[scope]()
    assert Path(folder) == tmp_path / 'pictures'
    assert hook.type == SCOPES[scope].visualization_hook and hook.get('draw', True) is True
    assert scope != 'mmseg' or hook.interval == 1
    assert cfg.visualizer.type == SCOPES[scope].visualizer


def test_out_must_be_a_pickle_except_for_segmentation():
    testing.check_out(SCOPES['mmseg'], 'folder')
    testing.check_out(SCOPES['mmdet'], 'boxes.pkl')
    with pytest.raises(UserError, match='label maps are written as PNG files'):
        testing.check_out(SCOPES['mmseg'], 'maps.pkl')
    with pytest.raises(UserError, match='must end with .pkl'):
        testing.check_out(SCOPES['mmdet'], 'boxes.json')


def test_segmentation_keeps_label_maps():
    cfg = Config(dict(test_evaluator=dict(type='IoUMetric')))
    testing.set_segmentation_out(cfg, 'maps')
    assert cfg.test_evaluator == dict(type='IoUMetric', output_dir='maps', keep_results=True)


def test_shapes_config_needs_no_weights():
    assert options.pretrained_files(Config.fromfile(SHAPES_CONFIG)) == []


PRETRAINED = dict(type='Pretrained', checkpoint='old.pth')
NORMAL = dict(type='Normal', layer='Conv2d')


@pytest.mark.parametrize(
    'model, started, random',
    [
        (
            dict(backbone=dict(init_cfg=[NORMAL, PRETRAINED])),
            dict(backbone=dict(init_cfg=[NORMAL, dict(PRETRAINED, checkpoint='new.pth')])),
            dict(backbone=dict(init_cfg=[NORMAL])),
        ),
        (
            dict(backbone=dict(pretrained='old.pth')),
            dict(backbone=dict(init_cfg=dict(PRETRAINED, checkpoint='new.pth'))),
            dict(backbone=dict()),
        ),
        (
            dict(pretrained='old.pth', backbone=dict(depth=18)),
            dict(backbone=dict(depth=18, init_cfg=dict(PRETRAINED, checkpoint='new.pth'))),
            dict(backbone=dict(depth=18)),
        ),
    ],
)
def test_every_spelling_of_pretrained_weights(model, started, random):
    cfg = Config(dict(model=model))
    assert options.pretrained_files(cfg) == ['old.pth']
    options.drop_pretrained(cfg)
    assert cfg.model.to_dict() == random
    cfg = Config(dict(model=model))
    options.set_pretrained(cfg, 'new.pth')
    assert cfg.model.to_dict() == started


def test_resume_drops_the_weights_that_it_overwrites(cfg, tmp_path):
    cfg.work_dir = str(tmp_path)
    options.set_resume(cfg, 'auto')  # nothing saved yet: they are needed
    assert options.pretrained_files(cfg) == ['checkpoints/vssm_nano_ms_e300.pth']
    (tmp_path / 'epoch_1.pth').write_bytes(b'')
    options.set_resume(cfg, str(tmp_path / 'epoch_1.pth'))
    assert options.pretrained_files(cfg) == [str(tmp_path / 'epoch_1.pth')]


def test_no_workers_to_keep():
    cfg = Config(
        dict(
            train_dataloader=dict(num_workers=0, persistent_workers=True),
            val_dataloader=dict(num_workers=2, persistent_workers=True),
            test_dataloader=None,
        )
    )
    options.set_workers(cfg)
    assert cfg.train_dataloader.persistent_workers is False and cfg.val_dataloader.persistent_workers is True
