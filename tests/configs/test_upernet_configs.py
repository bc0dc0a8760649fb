"""UperNet configs: they build, follow the recipe, and run with the stock tools of mmseg."""

import re
from pathlib import Path

import mmseg
import published
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from tiny_data import REPOSITORY, run_tool

CONFIGS = sorted((REPOSITORY / 'configs').glob('upernet_*vmamba_*.py'))
ADE = [path for path in CONFIGS if re.fullmatch('upernet_(msvmamba|vmamba)_.+_160k_ade20k.py', path.name)]
# name in the config file -> (arch, drop path, pretrained file, published parameters of the backbone)
VARIANTS = {
    'msvmamba_n': ('nano', 0.3, 'checkpoints/vssm_nano_ms_e300.pth', 6_479_808),
    'msvmamba_m': ('micro', 0.3, 'checkpoints/vssm_micro_ms_e300.pth', 11_367_168),
    'msvmamba_t': ('tiny', 0.2, 'checkpoints/vssm_tiny_ms_e300.pth', 32_278_656),
    'msvmamba_t_v3': ('tiny-v3', 0.2, 'msvmambav3_tiny_224.pth', 31_496_064),
    'msvmamba_s_v3': ('small-v3', 0.3, 'msvmambav3_small_224.pth', 49_448_640),
    'msvmamba_b_v3': ('base-v3', 0.5, 'msvmambav3_base_224.pth', 89_568_768),
    'vmamba_t_v0': ('tiny-v0', 0.3, '%23v0cls/vssmtiny_dp01_ckpt_epoch_292.pth', 22_125_792),
    'vmamba_s_v0': ('small-v0', 0.3, '%23v0cls/vssmsmall_dp03_ckpt_epoch_238.pth', 43_649_760),
    'vmamba_b_v0': ('base-v0', 0.3, '%23v0cls/vssmbase_dp06_ckpt_epoch_241.pth', 75_230_848),
    'vmamba_t_s2l5': ('tiny-s2l5', 0.2, '%23v2cls/vssm_tiny_0230_ckpt_epoch_262.pth', 29_938_176),
    'vmamba_s_s2l15': ('small-s2l15', 0.3, '%23v2cls/vssm_small_0229_ckpt_epoch_222.pth', 49_380_096),
    'vmamba_b_s2l15': ('base-s2l15', 0.6, '%23v2cls/vssm_base_0229_ckpt_epoch_237.pth', 87_534_592),
    'vmamba_t_s1l8': ('tiny-s1l8', 0.2, '%23v2cls/vssm1_tiny_0230s_ckpt_epoch_264.pth', 29_481_408),
}
# width of the first stage -> published parameters of the heads
HEADS = {48: 29_250_860, 64: 30_307_628, 96: 32_421_164}
# Their steps between stages are called `downsample.norm`, the others' `downsample.3`.
PATCH_MERGING = ('nano', 'micro', 'tiny', 'tiny-v0', 'small-v0', 'base-v0')
STOCK = Path(mmseg.__file__).parent / '.mim/tools'


@pytest.fixture(autouse=True)
def mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def identity(path: Path) -> str:
    return path.stem


def build(cfg: Config) -> torch.nn.Module:
    """On the meta device: every module and channel count is checked, without the cost of the weights."""
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def test_there_is_one_config_for_each_arch():
    assert {path.stem for path in ADE} == {f'upernet_{variant}_160k_ade20k' for variant in VARIANTS}


@pytest.mark.parametrize('path', CONFIGS, ids=identity)
def test_builds(path):
    cfg = Config.fromfile(str(path))
    model = build(cfg)
    features = model.backbone(torch.empty(1, 3, 64, 96, device='meta'))
    for head in (model.decode_head, model.auxiliary_head):
        for norm in (m for m in head.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)):
            norm.eval()
        assert head(features).shape[1] == len(cfg.get('classes', range(150)))
    assert [tuple(level.shape[2:]) for level in features] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert str(REPOSITORY) not in cfg.pretty_text


@pytest.mark.parametrize('path', ADE, ids=identity)
def test_parameters_are_the_published_ones(path):
    variant = re.fullmatch('upernet_(.+)_160k_ade20k', path.stem)[1]
    cfg = Config.fromfile(str(path))
    heads = heads_by_hand(cfg.model.decode_head.in_channels[0])
    assert sum(parameter.numel() for parameter in build(cfg).parameters()) == VARIANTS[variant][3] + heads


@pytest.mark.parametrize('dim', HEADS)
def test_heads_counted_by_hand(dim):
    """Those of the base models follow from their widths: nobody has published them."""
    assert heads_by_hand(dim) == HEADS[dim]


def heads_by_hand(dim: int, classes: int = 150, width: int = 512, aux: int = 256) -> int:
    """UPerHead and FCNHead: convolutions without bias, each with a norm's scale and shift, and two classifiers."""
    dims = [dim * 2**stage for stage in range(4)]

    def conv(inner: int, outer: int, size: int) -> int:
        return inner * outer * size**2 + 2 * outer

    pyramid = sum(conv(dim, width, 1) + conv(width, width, 3) for dim in dims[:3])
    pooling = 4 * conv(dims[3], width, 1) + conv(dims[3] + 4 * width, width, 3)
    fusion = conv(4 * width, width, 3) + (width + 1) * classes
    return pyramid + pooling + fusion + conv(dims[2], aux, 3) + (aux + 1) * classes


@pytest.mark.parametrize('path', ADE, ids=identity)
def test_recipe(path):
    variant = re.fullmatch('upernet_(.+)_160k_ade20k', path.stem)[1]
    arch, drop_path, pretrained, _ = VARIANTS[variant]
    cfg = Config.fromfile(str(path))
    backbone = cfg.model.backbone
    kind = published.backbone_class(arch).__name__
    assert (backbone.type, backbone.arch, backbone.drop_path_rate) == (kind, arch, drop_path)
    assert backbone.init_cfg.checkpoint == cfg.pretrained and cfg.pretrained.endswith(pretrained)
    assert 'Swin' not in cfg.pretty_text and cfg.model.get('pretrained') is None

    assert (cfg.model.decode_head.type, cfg.model.decode_head.channels) == ('UPerHead', 512)
    auxiliary = cfg.model.auxiliary_head
    assert (auxiliary.type, auxiliary.channels, auxiliary.in_index) == ('FCNHead', 256, 2)
    assert auxiliary.loss_decode.loss_weight == 0.4
    assert cfg.model.decode_head.num_classes == auxiliary.num_classes == 150
    assert cfg.model.test_cfg.mode == 'whole' and 'test_cfg' not in cfg.model.data_preprocessor

    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 6e-5, 0.01)
    assert optimizer.betas == (0.9, 0.999) and 'clip_grad' not in cfg.optim_wrapper
    warm_up, decay = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.begin, warm_up.end) == ('LinearLR', 1e-6, 0, 1500)
    assert (decay.type, decay.power, decay.begin, decay.end) == ('PolyLR', 1.0, 1500, 160000)
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (160000, 16000)
    assert cfg.train_dataloader.batch_size == 2 and cfg.auto_scale_lr.base_batch_size == 16

    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['RandomResize'].scale == (2048, 512) and steps['RandomResize'].ratio_range == (0.5, 2.0)
    assert steps['RandomCrop'].crop_size == cfg.model.data_preprocessor.size == (512, 512)
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (2048, 512)
    assert tta_ratios(cfg) == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


SWIN = STOCK.parent / 'configs/swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'


@pytest.mark.skipif(not SWIN.is_file(), reason='mmseg was installed without its configs')
def test_all_but_the_backbone_is_what_mmseg_ships_for_swin():
    """The published recipe is Swin's: heads, data, schedule and runtime are those of mmseg's own config."""
    ours = Config.fromfile(str(REPOSITORY / 'configs/upernet_msvmamba_t_160k_ade20k.py'))
    theirs = Config.fromfile(str(SWIN))
    theirs.model.pop('pretrained')
    for cfg in (ours, theirs):
        cfg.model.pop('backbone')
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            for step in loader.dataset.pipeline:
                step.pop('reduce_zero_label', None)  # the data set says so itself
        for step in cfg.tta_pipeline:
            step.pop('backend_args', None)
        for flip in cfg.tta_pipeline[1].transforms[1]:
            flip.pop('direction', None)  # horizontal is its default
        cfg.default_hooks.checkpoint.pop('max_keep_ckpts', None)
    same = ['model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator']
    same += ['param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg', 'default_hooks', 'log_processor', 'env_cfg']
    same += ['tta_pipeline', 'default_scope', 'visualizer']
    for key in same:
        assert ours[key] == theirs[key], key
    assert ours.optim_wrapper.optimizer == theirs.optim_wrapper.optimizer


def tta_ratios(cfg: Config) -> list[float]:
    scales, flips = cfg.tta_pipeline[-1].transforms[:2]
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    return [scale.scale_factor for scale in scales]


@pytest.mark.parametrize('variant', VARIANTS)
def test_weight_decay_of_norms(variant):
    """Norms are not decayed, except where the published name of a norm does not say so."""
    from mmengine.optim import build_optim_wrapper

    cfg = Config.fromfile(str(REPOSITORY / f'configs/upernet_{variant}_160k_ade20k.py'))
    model = build(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(parameter): group['weight_decay'] for group in groups for parameter in group['params']}
    for name, parameter in model.named_parameters():
        published_as_norm = 'norm' in name and not name.startswith('backbone.stem')
        if cfg.model.backbone.arch not in PATCH_MERGING and 'downsample.norm' in name:
            published_as_norm = False
        assert decay[id(parameter)] == (0.0 if published_as_norm else 0.01), name


def test_shapes_classes_are_those_of_the_data():
    from mmmsvmamba.datasets.shapes import SEG_CLASSES, SEG_PALETTE

    cfg = Config.fromfile(str(REPOSITORY / 'configs/upernet_msvmamba_n_shapes.py'))
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        assert loader.dataset.metainfo == dict(classes=SEG_CLASSES, palette=SEG_PALETTE)
    assert tta_ratios(cfg) == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


@pytest.mark.skipif(not STOCK.is_dir(), reason='mmseg was installed without its tools')
def test_stock_tools_of_mmseg_train_and_test_at_many_scales(tmp_path, ade_shapes):
    """Without our tools: the config alone brings in the backbone and the model of multi-scale testing."""
    roots = [f'{loader}_dataloader.dataset.data_root={ade_shapes}' for loader in ('train', 'val', 'test')]
    config = REPOSITORY / 'configs/upernet_msvmamba_n_shapes.py'
    short = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.logger.interval=1']
    short += ['train_dataloader.batch_size=2']
    train = run_tool(STOCK / 'train.py', config, '--cfg-options', *short, *roots, cwd=tmp_path)
    assert train.returncode == 0, train.stdout[-2000:] + train.stderr[-2000:]
    assert 'Iter(train) [2/2]' in train.stdout and 'mIoU' in train.stdout

    checkpoint = tmp_path / 'work_dirs/upernet_msvmamba_n_shapes/iter_2.pth'
    test = run_tool(STOCK / 'test.py', config, checkpoint, '--tta', '--cfg-options', *roots, cwd=tmp_path)
    assert test.returncode == 0, test.stdout[-2000:] + test.stderr[-2000:]
    assert 'mIoU' in test.stdout
