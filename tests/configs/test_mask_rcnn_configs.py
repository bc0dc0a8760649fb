"""Mask R-CNN configs: they build, follow the recipe, and run with the stock tool of mmdet."""

import re
from pathlib import Path

import mmdet
import published
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from tiny_data import REPOSITORY, run_tool

CONFIGS = sorted((REPOSITORY / 'configs').glob('mask_rcnn_*.py'))
COCO = [path for path in CONFIGS if 'shapes' not in path.name]
# name in the config file -> (arch, drop path, pretrained file)
VARIANTS = {
    'msvmamba_n': ('nano', 0.2, 'checkpoints/vssm_nano_ms_e300.pth'),
    'msvmamba_m': ('micro', 0.2, 'checkpoints/vssm_micro_ms_e300.pth'),
    'msvmamba_t': ('tiny', 0.2, 'checkpoints/vssm_tiny_ms_e300.pth'),
    'msvmamba_t_v3': ('tiny-v3', 0.2, 'msvmambav3_tiny_224.pth'),
    'msvmamba_s_v3': ('small-v3', 0.3, 'msvmambav3_small_224.pth'),
    'msvmamba_b_v3': ('base-v3', 0.5, 'msvmambav3_base_224.pth'),
    'vmamba_t_v0': ('tiny-v0', 0.2, '%23v0cls/vssmtiny_dp01_ckpt_epoch_292.pth'),
    'vmamba_s_v0': ('small-v0', 0.2, '%23v0cls/vssmsmall_dp03_ckpt_epoch_238.pth'),
    'vmamba_b_v0': ('base-v0', 0.2, '%23v0cls/vssmbase_dp06_ckpt_epoch_241.pth'),
    'vmamba_t_s2l5': ('tiny-s2l5', 0.2, '%23v2cls/vssm_tiny_0230_ckpt_epoch_262.pth'),
    'vmamba_s_s2l15': ('small-s2l15', 0.3, '%23v2cls/vssm_small_0229_ckpt_epoch_222.pth'),
    'vmamba_b_s2l15': ('base-s2l15', 0.6, '%23v2cls/vssm_base_0229_ckpt_epoch_237.pth'),
    'vmamba_t_s1l8': ('tiny-s1l8', 0.2, '%23v2cls/vssm1_tiny_0230s_ckpt_epoch_264.pth'),
}
# The authors of VMamba published no base model after 36 epochs.
LONG = [variant for variant in VARIANTS if not variant.startswith('vmamba_b')]
# Their steps between stages are called `downsample.norm`, the others' `downsample.3`.
PATCH_MERGING = ('nano', 'micro', 'tiny', 'tiny-v0', 'small-v0', 'base-v0')
STOCK_TRAIN = Path(mmdet.__file__).parent / '.mim/tools/train.py'


@pytest.fixture(autouse=True)
def mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def identity(path: Path) -> str:
    return path.stem


def test_there_is_one_config_for_each_arch_and_schedule():
    names = {f'mask_rcnn_{variant}_1x' for variant in VARIANTS} | {f'mask_rcnn_{variant}_3x' for variant in LONG}
    assert {path.stem for path in COCO} == names


@pytest.mark.parametrize('path', [path for path in CONFIGS if '_3x' not in path.name], ids=identity)
def test_builds(path):
    """Built on the meta device: every module and channel count is checked, without the cost of the weights."""
    cfg = Config.fromfile(str(path))
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
        features = model.backbone(torch.empty(1, 3, 64, 96))
        levels = model.neck(features)
    assert [tuple(level.shape[2:]) for level in levels[:4]] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert '/work' not in cfg.pretty_text and str(REPOSITORY) not in cfg.pretty_text


@pytest.mark.parametrize('variant', LONG)
def test_both_schedules_train_the_same_model(variant):
    short, long = (Config.fromfile(str(REPOSITORY / f'configs/mask_rcnn_{variant}_{x}.py')) for x in ('1x', '3x'))
    assert short.model == long.model and short.optim_wrapper == long.optim_wrapper


@pytest.mark.parametrize('path', COCO, ids=identity)
def test_recipe(path):
    variant, schedule = re.fullmatch(r'mask_rcnn_(.+)_(1x|3x)', path.stem).groups()
    arch, drop_path, pretrained = VARIANTS[variant]
    cfg = Config.fromfile(str(path))
    backbone = cfg.model.backbone
    kind = published.backbone_class(arch).__name__
    assert (backbone.type, backbone.arch, backbone.drop_path_rate) == (kind, arch, drop_path)
    assert backbone.init_cfg.checkpoint == cfg.pretrained and cfg.pretrained.endswith(pretrained)

    epochs, steps = {'1x': (12, [8, 11]), '3x': (36, [27, 33])}[schedule]
    warm_up, decay = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == decay.end == epochs and decay.milestones == steps
    assert (warm_up.type, warm_up.start_factor, warm_up.end) == ('LinearLR', 0.001, 1000)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    assert optimizer.betas == (0.9, 0.999) and 'clip_grad' not in cfg.optim_wrapper
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=16)

    pipeline = cfg.train_dataloader.dataset.pipeline
    if schedule == '1x':
        assert pipeline[2].scale == (1333, 800)
    else:
        whole, crop = pipeline[3].transforms
        assert whole[0].scales == [(side, 1333) for side in (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)]
        assert [step.type for step in crop] == ['RandomChoiceResize', 'RandomCrop', 'RandomChoiceResize']
        assert crop[1].crop_size == (384, 600)
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (1333, 800)


@pytest.mark.parametrize('variant', VARIANTS)
def test_weight_decay_of_norms(variant):
    """Norms are not decayed, except where the published name of a norm does not say so."""
    from mmengine.optim import build_optim_wrapper

    cfg = Config.fromfile(str(REPOSITORY / f'configs/mask_rcnn_{variant}_1x.py'))
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(parameter): group['weight_decay'] for group in groups for parameter in group['params']}
    for name, parameter in model.named_parameters():
        published_as_norm = 'norm' in name and not name.startswith('backbone.stem')
        if cfg.model.backbone.arch not in PATCH_MERGING and 'downsample.norm' in name:
            published_as_norm = False
        assert decay[id(parameter)] == (0.0 if published_as_norm else 0.05), name


def test_shapes_comparison_differs_in_the_backbone_alone():
    ours, theirs = (
        Config.fromfile(str(REPOSITORY / f'configs/mask_rcnn_{name}_shapes.py')) for name in ('msvmamba_n', 'r18')
    )
    for cfg in (ours, theirs):
        cfg.model.pop('backbone')
        cfg.model.neck.pop('in_channels')
    assert ours.pretty_text == theirs.pretty_text


def test_shapes_classes_are_those_of_the_data():
    from mmmsvmamba.datasets.shapes import CLASSES, PALETTE

    cfg = Config.fromfile(str(REPOSITORY / 'configs/mask_rcnn_msvmamba_n_shapes.py'))
    assert cfg.train_dataloader.dataset.metainfo == dict(classes=CLASSES, palette=PALETTE)


@pytest.mark.skipif(not STOCK_TRAIN.is_file(), reason='mmdet was installed without its tools')
def test_stock_tool_of_mmdet_runs_a_config(tmp_path, shapes):
    """Without our tools: the config alone brings in the backbone, and checkpoints are still read safely."""
    options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=10', 'default_hooks.logger.interval=1']
    roots = [f'{loader}_dataloader.dataset.data_root={shapes}' for loader in ('train', 'val', 'test')]
    files = [f'{loader}_evaluator.ann_file={shapes}/annotations/instances_val2017.json' for loader in ('val', 'test')]
    config = REPOSITORY / 'configs/mask_rcnn_msvmamba_n_shapes.py'
    run = run_tool(STOCK_TRAIN, config, '--cfg-options', *options, *roots, *files, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert 'Iter(train) [2/2]' in run.stdout
    assert (tmp_path / 'work_dirs/mask_rcnn_msvmamba_n_shapes/iter_2.pth').is_file()
