"""The configs of Vim: they build, follow the authors' recipes, and their models train."""

import copy
import functools

import published
import published_vim
import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from tiny_data import REPOSITORY
from torch import nn

from mmmsvmamba.checkpoints import convert_official

HUB = 'https://huggingface.co/hustvl/Vim-{}-midclstok/resolve/main/vim_{}_midclstok_{}acc.pth'
FILES = {
    't': HUB.format('tiny', 't', '76p1'),
    's': HUB.format('small', 's', '80p5'),
    'b': HUB.format('base', 'b', '81p9'),
}
# name -> (arch, drop path, parameters, weight decay, published file)
CLASSIFIERS = {
    'vim_t_in1k': ('tiny', 0.0, 7_148_008, 0.1, FILES['t']),
    'vim_s_in1k': ('small', 0.05, 25_796_584, 0.05, FILES['s']),
    'vim_b_in1k': ('base', 0.1, 97_598_440, 0.05, FILES['b']),
    'vim_t_in1k_stride8_finetune': ('tiny-stride8', 0.0, 7_250_344, 1e-8, HUB.format('tiny', 't', 'ft_78p3')),
    'vim_s_in1k_stride8_finetune': ('small-stride8', 0.0, 26_001_256, 1e-8, HUB.format('small', 's', 'ft_81p6')),
}
SEGMENTORS = {'upernet_vim_t_60k_ade20k': ('tiny', 192, 't'), 'upernet_vim_s_60k_ade20k': ('small', 384, 's')}
DETECTOR = 'cascade_mask_rcnn_vim_t_100e'
#: Few blocks and channels, as an `arch`.
SMALL = dict(base='tiny', embed_dims=32, depth=4, d_state=4)


@functools.cache
def _read(name: str) -> Config:
    return Config.fromfile(str(REPOSITORY / f'configs/{name}.py'))


def read(name: str) -> Config:
    cfg = copy.deepcopy(_read(name))
    assert '/work' not in cfg.pretty_text and str(REPOSITORY) not in cfg.pretty_text
    return cfg


def build(cfg: Config, device: str = 'meta') -> nn.Module:
    """On the meta device every module and channel count is checked, without the cost of the weights."""
    model = copy.deepcopy(cfg.model)
    model.pop('init_cfg', None)
    model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        return MODELS.build(model)


def test_these_are_all():
    names = {path.stem for path in (REPOSITORY / 'configs').glob('*vim*.py')}
    assert names == {*CLASSIFIERS, *SEGMENTORS, DETECTOR}


# ---- classification ----


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifier(name):
    arch, drop_path, count, weight_decay, file = CLASSIFIERS[name]
    cfg = read(name)
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.arch, backbone.drop_path_rate) == ('Vim', arch, drop_path)
    assert cfg.published == file and 'init_cfg' not in backbone and cfg.load_from is None
    model = build(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    with torch.device('meta'):
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)

    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.weight_decay, optimizer.betas) == ('AdamW', weight_decay, (0.9, 0.999))
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 1024
    if name.endswith('_in1k'):
        assert optimizer.lr == 1e-3 and cfg.train_cfg.max_epochs == 300 and 'init_cfg' not in cfg.model
        assert cfg.param_scheduler[-1].type == 'CosineAnnealingLR' and cfg.param_scheduler[-1].end == 300
    else:
        assert optimizer.lr == 1e-5 and cfg.train_cfg.max_epochs == 30
        [schedule] = cfg.param_scheduler
        assert (schedule.type, schedule.factor) == ('ConstantLR', 1.0)
        # the whole classifier goes on from the one with stride 16
        assert cfg.model.init_cfg == dict(type='Pretrained', checkpoint=FILES[name[4]])


@published.needs_reference
@pytest.mark.parametrize('name', ['vim_t_in1k', 'upernet_vim_t_60k_ade20k'])
def test_what_has_one_dimension_upstream_is_not_decayed(name):
    """Nor are the tokens; the published rule looks at the authors' shapes, ours have a dimension for route groups."""
    cfg = read(name)
    model = build(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(parameter): group['weight_decay'] for group in groups for parameter in group['params']}
    given = {key: torch.empty(shape) for key, shape in published_vim.shapes('tiny').items()}
    owner = {value.untyped_storage().data_ptr(): key for key, value in given.items()}
    converted = convert_official(given, target='classifier')
    shared = converted.keys() & dict(model.named_parameters()).keys()  # a segmentor lacks the classifier's last layers
    for key in shared:
        source = owner[converted[key].untyped_storage().data_ptr()]
        spared = given[source].ndim == 1 or source.endswith('.bias') or source in ('cls_token', 'pos_embed')
        assert (decay[id(model.get_parameter(key))] == 0) == spared, f'{key}, published as {source}'
    assert len(shared) >= 4 + 24 * 18 and set(decay.values()) == {0.0, cfg.optim_wrapper.optimizer.weight_decay}


# ---- segmentation ----


@pytest.mark.parametrize('name', SEGMENTORS)
def test_segmentor(name):
    arch, dim, file = SEGMENTORS[name]
    cfg = read(name)
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.arch, backbone.out_indices) == ('Vim', arch, (5, 11, 17, 23))
    assert backbone.init_cfg.checkpoint == cfg.pretrained == FILES[file]
    assert cfg.model.decode_head.channels == dim and cfg.model.auxiliary_head.channels == 256
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
    model = build(cfg)
    features = model.backbone(torch.empty(1, 3, 64, 96, device='meta'))
    assert [tuple(out.shape[1:]) for out in features] == [(dim, 16, 24), (dim, 8, 12), (dim, 4, 6), (dim, 2, 3)]

    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    warm_up, decay = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.end) == ('LinearLR', 1e-6, 1500)
    assert (decay.type, decay.power, decay.begin, decay.end) == ('PolyLR', 1.0, 1500, cfg.train_cfg.max_iters)
    assert cfg.train_cfg.max_iters == 60000
    assert cfg.train_dataloader.batch_size * 4 == cfg.auto_scale_lr.base_batch_size == 32


def rates(cfg: Config, model: nn.Module) -> dict[str, float]:
    """Learning rate of each parameter."""
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group['lr'] for group in groups for parameter in group['params']}


@pytest.mark.parametrize('name, decay', [('upernet_vim_t_60k_ade20k', 0.92), (DETECTOR, 0.837)])
def test_layers_have_their_learning_rates(name, decay):
    cfg = read(name)
    model = build(cfg)
    found = rates(cfg, model)
    assert found.keys() == dict(model.named_parameters()).keys()
    for parameter, rate in found.items():
        parts = parameter.removeprefix('backbone.').split('.')
        steps = 0
        if parameter.startswith('backbone.'):
            first = parts[0] in ('patch_embed', 'cls_token', 'pos_embed')
            steps = 25 if first else 24 - int(parts[1]) if parts[0] == 'blocks' else 0
        assert rate == pytest.approx(1e-4 * decay**steps), parameter


def assert_trains(model: nn.Module, data: dict) -> None:
    """A finite loss, and a gradient for every parameter of the backbone."""
    loss, _ = model.parse_losses(model(**model.data_preprocessor(data, True), mode='loss'))
    assert loss.isfinite()
    loss.backward()
    assert not [name for name, p in model.backbone.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_segmentor_trains_and_slides():
    cfg = read('upernet_vim_t_60k_ade20k')
    norm_cfg = dict(type='BN')  # that of the config is for several GPUs
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.model.backbone.update(arch=SMALL, out_indices=(0, 1, 2, 3))
    cfg.model.decode_head.update(in_channels=[32] * 4, channels=16, norm_cfg=norm_cfg)
    cfg.model.auxiliary_head.update(in_channels=32, channels=16, norm_cfg=norm_cfg)
    cfg.model.test_cfg.update(crop_size=(64, 64), stride=(43, 43))
    model = build(cfg, 'cpu').train()
    torch.manual_seed(0)
    images = [torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    labels = [PixelData(data=torch.randint(150, (1, 64, 64))) for _ in images]
    data = dict(inputs=images, data_samples=[SegDataSample(gt_sem_seg=label) for label in labels])
    assert_trains(model, data)
    sample = SegDataSample(metainfo=dict(ori_shape=(70, 101), img_shape=(70, 101)))
    image = torch.randint(256, (3, 70, 101), dtype=torch.uint8)
    [result] = model.eval().test_step(dict(inputs=[image], data_samples=[sample]))
    assert result.pred_sem_seg.data.shape == (1, 70, 101)


# ---- detection ----


def test_detector():
    cfg = read(DETECTOR)
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.arch, backbone.out_indices) == ('Vim', 'tiny', (5, 11, 17, 23))
    assert backbone.init_cfg.checkpoint == cfg.pretrained == FILES['t']
    model = build(cfg)
    with torch.device('meta'):
        levels = model.neck(model.backbone(torch.empty(1, 3, 1024, 1024)))
    assert [tuple(level.shape[1:]) for level in levels] == [(256, side, side) for side in (256, 128, 64, 32, 16)]
    assert not any('lateral' in name for name, _ in model.neck.named_modules())

    train = cfg.train_dataloader.dataset
    steps = {step.type: step for step in train.dataset.pipeline}
    assert steps['RandomResize'].scale == steps['RandomCrop'].crop_size == (1024, 1024)
    assert steps['RandomResize'].ratio_range == (0.1, 2.0)
    assert train.times * cfg.train_cfg.max_epochs == 100
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.pipeline[1].scale == (1024, 1024)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == (
        'AdamW',
        1e-4,
        0.1,
    ) and 'momentum' not in optimizer
    warm_up, decay = cfg.param_scheduler
    assert (warm_up.start_factor, warm_up.end) == (0.001, 250)
    # the authors' iterations, of 184,375
    assert decay.milestones == [round(25 * step / 184375) for step in (163889, 177546)]
    assert cfg.auto_scale_lr.base_batch_size == 64


def test_detector_trains_and_predicts():
    cfg = read(DETECTOR)
    model = cfg.model
    model.data_preprocessor.batch_augments[0].size = (64, 64)
    model.backbone.update(arch=SMALL, out_indices=(0, 1, 2, 3))
    model.neck.in_channels = [32] * 4
    model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=50)
    model.test_cfg.rpn.update(nms_pre=50, max_per_img=20)
    for stage in model.train_cfg.rcnn:
        stage.sampler.num = 4
    for head in model.roi_head.bbox_head:
        head.fc_out_channels = 64
    detector = build(cfg, 'cpu').train()
    torch.manual_seed(0)
    data = demo_mm_inputs(2, image_shapes=[(3, 64, 48), (3, 50, 64)], num_items=[3, 2], with_mask=True)
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert_trains(detector, copy.deepcopy(data))
        with torch.no_grad():
            results = detector.eval().test_step(data)
    assert len(results) == 2 and all(hasattr(result.pred_instances, 'masks') for result in results)
