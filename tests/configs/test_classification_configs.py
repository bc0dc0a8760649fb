"""ImageNet configs: they build, have the published sizes, follow the recipe, run with mmpretrain's own tool."""

import re
from pathlib import Path

import mmpretrain
import published
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from tiny_data import REPOSITORY, run_tool

from mmmsvmamba import MSVMamba, VMamba
from mmmsvmamba.checkpoints import convert_official
from mmmsvmamba.datasets.shapes import CLASSES
from mmmsvmamba.datasets.shapes_export import ShapesSpec, export_shapes

CONFIGS = REPOSITORY / 'configs'
SHAPES = CONFIGS / 'msvmamba_n_shapes.py'
HUGGING_FACE = 'https://huggingface.co/YuhengSSS/MSVMamba/resolve/main/'
VMAMBA = 'https://github.com/MzeroMiko/VMamba/releases/download/%23'
# name in the config file -> (arch, drop path, published parameters, published file)
VARIANTS = {
    'msvmamba_n': ('nano', 0.2, 6_864_136, 'checkpoints/vssm_nano_ms_e300.pth'),
    'msvmamba_m': ('micro', 0.2, 11_879_272, 'checkpoints/vssm_micro_ms_e300.pth'),
    'msvmamba_t': ('tiny', 0.2, 33_046_312, 'checkpoints/vssm_tiny_ms_e300.pth'),
    'msvmamba_t_v3': ('tiny-v3', 0.2, 32_263_720, HUGGING_FACE + 'msvmambav3_tiny_224.pth'),
    'msvmamba_s_v3': ('small-v3', 0.4, 50_216_296, HUGGING_FACE + 'msvmambav3_small_224.pth'),
    'msvmamba_b_v3': ('base-v3', 0.5, 90_591_976, HUGGING_FACE + 'msvmambav3_base_224.pth'),
    'vmamba_t_v0': ('tiny-v0', 0.1, 22_893_448, VMAMBA + 'v0cls/vssmtiny_dp01_ckpt_epoch_292.pth'),
    'vmamba_s_v0': ('small-v0', 0.3, 44_417_416, VMAMBA + 'v0cls/vssmsmall_dp03_ckpt_epoch_238.pth'),
    'vmamba_b_v0': ('base-v0', 0.6, 76_254_056, VMAMBA + 'v0cls/vssmbase_dp06_ckpt_epoch_241.pth'),
    'vmamba_t_s2l5': ('tiny-s2l5', 0.2, 30_705_832, VMAMBA + 'v2cls/vssm_tiny_0230_ckpt_epoch_262.pth'),
    'vmamba_s_s2l15': ('small-s2l15', 0.3, 50_147_752, VMAMBA + 'v2cls/vssm_small_0229_ckpt_epoch_222.pth'),
    'vmamba_b_s2l15': ('base-s2l15', 0.6, 88_557_800, VMAMBA + 'v2cls/vssm_base_0229_ckpt_epoch_237.pth'),
    'vmamba_t_s1l8': ('tiny-s1l8', 0.2, 30_249_064, VMAMBA + 'v2cls/vssm1_tiny_0230s_ckpt_epoch_264.pth'),
    'vmamba_s_s1l20': ('small-s1l20', 0.3, 49_012_840, VMAMBA + 'v2cls/vssm1_small_0229s_ckpt_epoch_240.pth'),
    'vmamba_b_s1l20': ('base-s1l20', 0.5, 86_614_504, VMAMBA + 'v2cls/vssm1_base_0229s_ckpt_epoch_225.pth'),
}
STOCK_TRAIN = Path(mmpretrain.__file__).parent / '.mim/tools/train.py'


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def read(variant: str) -> Config:
    return Config.fromfile(str(CONFIGS / f'{variant}_in1k.py'))


def build(cfg: Config) -> torch.nn.Module:
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def test_there_is_one_config_for_each_arch():
    found = {path.stem for family in ('msvmamba', 'vmamba') for path in CONFIGS.glob(f'{family}_*_in1k.py')}
    assert found == {f'{variant}_in1k' for variant in VARIANTS}
    archs = [arch for family in (MSVMamba, VMamba) for arch in family.arch_settings]
    assert sorted(arch for arch, *_ in VARIANTS.values()) == sorted(archs)


@pytest.mark.parametrize('variant', VARIANTS)
def test_builds_with_the_published_number_of_parameters(variant):
    arch, drop_path, count, published_file = VARIANTS[variant]
    cfg = read(variant)
    backbone = cfg.model.backbone
    kind = published.backbone_class(arch).__name__
    assert (backbone.type, backbone.arch, backbone.drop_path_rate) == (kind, arch, drop_path)
    # trained from random weights; the published file is named for those who test it
    assert 'init_cfg' not in backbone and cfg.load_from is None
    assert cfg.published == published_file
    assert ('published_source' in cfg) == published_file.startswith('checkpoints/')

    model = build(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    with torch.device('meta'):
        assert model(torch.empty(2, 3, 64, 64)).shape == (2, 1000)
    assert '/work' not in cfg.pretty_text and str(REPOSITORY) not in cfg.pretty_text


@pytest.mark.parametrize('variant', VARIANTS)
def test_recipe(variant):
    cfg = read(variant)
    lr, lowest = (6e-4, 6e-6) if variant == 'msvmamba_b_v3' else (1e-3, 1e-5)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', lr, 0.05)
    assert (optimizer.betas, optimizer.eps) == ((0.9, 0.999), 1e-8)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=5.0)
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=1024) and cfg.train_dataloader.batch_size * 8 == 1024

    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.type, warm_up.begin, warm_up.end) == ('LinearLR', 0, 20)
    assert warm_up.start_factor * lr == pytest.approx(1e-6, rel=1e-12)
    assert (cosine.type, cosine.begin, cosine.end) == ('CosineAnnealingLR', 20, cfg.train_cfg.max_epochs)
    assert cosine.eta_min_ratio * lr == pytest.approx(lowest, rel=1e-12) and cfg.train_cfg.max_epochs == 300
    assert warm_up.convert_to_iter_based and cosine.convert_to_iter_based

    [average] = cfg.custom_hooks
    assert (average.type, average.momentum, average.evaluate_on_origin) == ('EMAHook', 1e-4, True)
    loss = cfg.model.head.loss
    assert (loss.type, loss.label_smooth_val, loss.mode) == ('LabelSmoothLoss', 0.1, 'original')
    assert cfg.model.train_cfg.augments == [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]


def test_pipelines():
    cfg = read('msvmamba_n')
    train = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    crop, augment, erase = (train[name] for name in ('RandomResizedCrop', 'RandAugment', 'RandomErasing'))
    assert (crop.scale, crop.interpolation, crop.backend) == (224, 'bicubic', 'pillow')
    assert (augment.policies, augment.num_policies, augment.total_level) == ('timm_increasing', 2, 10)
    assert (augment.magnitude_level, augment.magnitude_std) == (9, 0.5)
    assert (erase.erase_prob, erase.mode) == (0.25, 'rand')
    assert cfg.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert cfg.data_preprocessor.std == [58.395, 57.12, 57.375] and cfg.data_preprocessor.to_rgb
    for loader in ('val_dataloader', 'test_dataloader'):
        _, resize, crop, _ = cfg[loader].dataset.pipeline
        assert (resize.scale, resize.edge, resize.interpolation, crop.crop_size) == (256, 'short', 'bicubic', 224)
        assert cfg[loader].dataset.type == 'ImageNetFolders' and cfg[loader].dataset.data_prefix == 'val'
    assert cfg.train_dataloader.dataset.data_prefix == 'train'


@published.needs_reference
@pytest.mark.parametrize('variant', VARIANTS)
def test_what_has_one_dimension_upstream_is_not_decayed(variant):
    """The published rule looks at the authors' shapes and names; ours differ in both."""
    cfg = read(variant)
    model = build(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(parameter): group['weight_decay'] for group in groups for parameter in group['params']}
    assert set(decay.values()) == {0.0, 0.05}

    given = {key: torch.empty(shape) for key, shape in published.shapes(cfg.model.backbone.arch, 'cls').items()}
    owner = {value.untyped_storage().data_ptr(): key for key, value in given.items()}
    converted = convert_official(given, target='classifier')
    assert converted.keys() == dict(model.named_parameters()).keys() and len(decay) == len(converted)
    for name, value in converted.items():
        source = owner[value.untyped_storage().data_ptr()]
        spared = given[source].ndim == 1 or source.endswith('.bias')
        assert (decay[id(model.get_parameter(name))] == 0) == spared, f'{name}, published as {source}'
    sources = {owner[value.untyped_storage().data_ptr()] for value in converted.values()}
    assert sources == given.keys()


def test_shapes_config():
    cfg = Config.fromfile(str(SHAPES))
    assert all(cfg[f'{loader}_dataloader'].dataset.metainfo.classes == CLASSES for loader in ('train', 'val', 'test'))
    model = build(cfg)
    with torch.device('meta'):
        assert model(torch.empty(1, 3, 96, 96)).shape == (1, len(CLASSES))
    assert '/work' not in cfg.pretty_text and str(REPOSITORY) not in cfg.pretty_text


@pytest.mark.skipif(not STOCK_TRAIN.is_file(), reason='mmpretrain was installed without its tools')
def test_stock_tool_of_mmpretrain_runs_a_config(tmp_path):
    """Without our tools: the config alone brings in the backbone."""
    export_shapes(tmp_path / 'data/shapes', ShapesSpec(train=8, val=2, size=64, layouts=('imagenet',)))
    options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.logger.interval=1']
    batches = ['train_dataloader.batch_size=2']
    run = run_tool(STOCK_TRAIN, SHAPES, '--cfg-options', *options, *batches, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert re.search(r'Iter\(train\) +\[2/2\]', run.stdout) and 'accuracy/top1' in run.stdout
    assert (tmp_path / 'work_dirs/msvmamba_n_shapes/iter_2.pth').is_file()
