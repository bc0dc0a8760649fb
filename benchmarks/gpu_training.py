"""A training step of a whole detector and a whole segmentor: against torch's operators, and beside Swin-T.

The models are those of the configs, of random weights, on made images and annotations, under bfloat16 autocast. Two
things are fixed, for a comparison would not bear them. First, what a detector takes for objects: proposals are sorted
and cut off by scores, so that a rounding decides which are drawn; all runs are given those of the float32 run, and draw
from them by the same seed. Second, norms over the batch: the 1×1 map of UperNet's pooling has two values for each
channel in a batch of two, which such a norm turns into ±1 and their gradient into rounding; they use their running
statistics. What is left are sums in another order, judged in float32, and roundings to bfloat16, judged as in
`gpu_models`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from unittest import mock

import gpu_backbones
import gpu_models
import torch
from forced import forced
from gpu_compare import Errors, error, far
from registry import Work
from torch import Tensor, nn
from worker import Settings, Skip, Step, need_packages

#: Task -> config, height and width of its images.
TASKS = {
    'detection': ('configs/mask_rcnn_msvmamba_t_1x.py', (800, 1280)),
    'segmentation': ('configs/upernet_msvmamba_t_160k_ade20k.py', (512, 512)),
}
PACKAGES = {'detection': 'mmdet', 'segmentation': 'mmseg'}
#: Images, the objects of each, and classes, which all configs have.
BATCH, OBJECTS, CLASSES = 2, 12, 4
#: For the tests: the small configs, a block in each stage, few channels, small images.
TINY_CONFIGS = {
    'detection': 'configs/mask_rcnn_msvmamba_n_shapes.py',
    'segmentation': 'configs/upernet_msvmamba_n_shapes.py',
}
TINY_SIZE, TINY_CHANNELS = (64, 96), 16
#: The same size as MSVMamba-T, as mmdet and mmseg both have it.
SWIN = dict(
    type='SwinTransformer',
    embed_dims=96,
    depths=[2, 2, 6, 2],
    num_heads=[3, 6, 12, 24],
    window_size=7,
    mlp_ratio=4,
    qkv_bias=True,
    drop_path_rate=0.0,
    out_indices=(0, 1, 2, 3),
    patch_norm=True,
)

#: In float32, of the largest value of every tensor: ten times that of backbones, for gradients of regions are summed
#: by atomic additions on a GPU, in another order every time.
TOLERANCE = 10 * gpu_models.TOLERANCE

Data = dict


class InFloat32(nn.Module):
    """A RoIAlign in float32: mmcv's has no bfloat16."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        # the extractor asks for it
        self.output_size = layer.output_size

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.layer(x.float(), rois.float()).to(x.dtype)


def need(task: str) -> None:
    need_packages('mmengine', 'mmcv')
    # compiled code of mmcv may be for another torch or GPU
    need_packages('mmcv.ops', PACKAGES[task], of_others=True)


def model_of(task: str, device: torch.device, tiny: bool, swin: bool = False) -> nn.Module:
    """The model of a task for training, of random weights, on ours or on Swin-T."""
    need(task)
    from mmengine.model import revert_sync_batchnorm

    from mmmsvmamba.engine.building import build_model
    from mmmsvmamba.engine.options import drop_pretrained, read_config
    from mmmsvmamba.engine.scopes import scope_of

    cfg = read_config(TINY_CONFIGS[task] if tiny else TASKS[task][0], None)
    drop_pretrained(cfg)
    backbone = cfg.model.backbone
    backbone.drop_path_rate = 0.0
    dims = [96 * 2**i for i in range(4)]
    if tiny:
        backbone.arch = dict(base='nano', depths=[1, 1, 1, 1], dims=TINY_CHANNELS)
        dims = [TINY_CHANNELS * 2**i for i in range(4)]
    if swin:
        small = dict(embed_dims=TINY_CHANNELS, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1]) if tiny else {}
        cfg.model.backbone = dict(SWIN, **small)
    if task == 'detection':
        cfg.model.neck.in_channels = dims
    else:
        cfg.model.data_preprocessor.size = TINY_SIZE if tiny else TASKS[task][1]
        cfg.model.decode_head.in_channels = dims
        cfg.model.auxiliary_head.in_channels = dims[2]
    torch.manual_seed(0)
    model = revert_sync_batchnorm(build_model(cfg, scope_of(cfg)))
    if task == 'detection':
        for extractor in (model.roi_head.bbox_roi_extractor, model.roi_head.mask_roi_extractor):
            extractor.roi_layers = nn.ModuleList(InFloat32(layer) for layer in extractor.roi_layers)
        model.rpn_head.predict_by_feat = partial(_proposals_in_float32, model.rpn_head.predict_by_feat)
    return model.to(device).train()


def _proposals_in_float32(own: Callable, scores: list[Tensor], boxes: list[Tensor], **options) -> object:
    """Proposals of scores and boxes in float32: mmcv's non-maximum suppression has no bfloat16 either."""
    return own([x.float() for x in scores], [x.float() for x in boxes], **options)


def detection_data(size: tuple[int, int], batch: int) -> Data:
    """Images with rectangles of random place, size and class, and their masks."""
    import numpy
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    rand = numpy.random.default_rng(0)
    height, width = size
    samples = []
    for _ in range(batch):
        begin = rand.uniform(0, 0.6, (OBJECTS, 2)) * (width, height)
        extent = rand.uniform(0.1, 0.4, (OBJECTS, 2)) * (width, height)
        boxes = numpy.concatenate([begin, begin + extent], 1).astype('float32')
        masks = numpy.zeros((OBJECTS, height, width), dtype='uint8')
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = 1
        instances = InstanceData(
            bboxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(rand.integers(0, CLASSES, OBJECTS)),
            masks=BitmapMasks(masks, height, width),
        )
        metainfo = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
        ignored = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
        samples.append(DetDataSample(metainfo=metainfo, gt_instances=instances, ignored_instances=ignored))
    return dict(inputs=images_of(size, batch), data_samples=samples)


def segmentation_data(size: tuple[int, int], batch: int) -> Data:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    rand = torch.Generator().manual_seed(0)
    metainfo = dict(img_shape=size, ori_shape=size, pad_shape=size)
    samples = [
        SegDataSample(metainfo=metainfo, gt_sem_seg=PixelData(data=torch.randint(CLASSES, (1, *size), generator=rand)))
        for _ in range(batch)
    ]
    return dict(inputs=images_of(size, batch), data_samples=samples)


def images_of(size: tuple[int, int], batch: int) -> list[Tensor]:
    rand = torch.Generator().manual_seed(0)
    return list(torch.randint(256, (batch, 3, *size), dtype=torch.uint8, generator=rand))


DATA: dict[str, Callable[[tuple[int, int], int], Data]] = {
    'detection': detection_data,
    'segmentation': segmentation_data,
}


def loss_of(model: nn.Module, data: Data, dtype: torch.dtype | None, device: torch.device) -> tuple[Tensor, dict]:
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        return model.parse_losses(model(**data, mode='loss'))


# ---- against torch's operators ----


@contextmanager
def same_proposals(model: nn.Module, kept: list) -> Iterator[None]:
    """In this context a detector's proposals are those of its first pass in it; another model's do not matter."""
    if not hasattr(model, 'rpn_head'):
        yield
        return
    own = model.rpn_head.loss_and_predict

    def loss_and_predict(*args, **options):
        losses, proposals = own(*args, **options)
        if not kept:
            kept.extend(proposals)
        # what follows writes into them
        return losses, deepcopy(kept)

    with mock.patch.object(model.rpn_head, 'loss_and_predict', loss_and_predict):
        yield


def step(model: nn.Module, data: Data, dtype: torch.dtype | None, device: torch.device) -> dict[str, Tensor]:
    """Losses and the gradients of all parameters, by name."""
    torch.manual_seed(0)  # samplers and dropout draw
    model.zero_grad(set_to_none=True)
    total, losses = loss_of(model, data, dtype, device)
    total.backward()
    found = {name: value.detach().clone() for name, value in losses.items() if 'loss' in name}
    return found | gpu_models.gradients(model)


def against_torch(settings: Settings, task: str, dtype: torch.dtype = torch.bfloat16, ours: str = 'triton') -> dict:
    """A training step on Triton and on torch's operators, both compared with torch's in float32.

    Args:
        settings: Of the run.
        task: Of `TASKS`.
        dtype: Of the autocast.
        ours: The backend that is judged; torch's own shows what the comparison takes for equal.
    """
    device = settings.device
    size = TINY_SIZE if settings.tiny else TASKS[task][1]
    model = model_of(task, device, settings.tiny)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    data = model.data_preprocessor(DATA[task](size, BATCH), training=True)
    kept: list = []
    with gpu_models.exact(), same_proposals(model, kept):
        with forced('torch'):
            exactly = step(model, data, None, device)
            theirs = step(model, data, dtype, device)
        with forced(ours):
            single = step(model, data, None, device)
            found = step(model, data, dtype, device)
    errors, of_single = Errors(), Errors()
    for name, value in exactly.items():
        of_single.add(name, far(single[name], value, float('inf')), TOLERANCE, 'float32')
    least = gpu_models.TINY_FLOOR if settings.tiny else gpu_models.FLOOR
    figures = gpu_models.compare_half(errors, found, theirs, exactly, least)
    errors.wrong += of_single.wrong
    figures['largest_error_in_float32'] = max(of_single.largest.values())
    return gpu_models.summary(errors) | figures | {'loss': exactly['loss'].item()}


def operators_of_mmcv(settings: Settings) -> dict:
    """RoIAlign and non-maximum suppression of mmcv against torchvision's: a detector's results rest on them."""
    need_packages('mmcv.ops', 'torchvision')
    from mmcv.ops import nms, roi_align
    from torchvision.ops import nms as torchvision_nms
    from torchvision.ops import roi_align as torchvision_roi_align

    device, rand = settings.device, torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 40, 56, generator=rand).to(device)
    corner, extent = torch.rand(50, 2, generator=rand) * 120, 8 + torch.rand(50, 2, generator=rand) * 60
    boxes = torch.cat([corner, corner + extent], 1).to(device)
    rois = torch.cat([torch.randint(2, (50, 1), generator=rand).to(boxes), boxes], 1)
    errors = Errors()
    ours = roi_align(x, rois, (7, 7), 0.25, 2, 'avg', True)
    errors.add('RoIAlign', error(ours, torchvision_roi_align(x, rois, (7, 7), 0.25, 2, True)), 1e-4)
    scores = torch.rand(50, generator=rand).to(device)
    _, kept = nms(boxes, scores, 0.5)
    expected = torchvision_nms(boxes, scores, 0.5)
    assert torch.equal(kept.sort().values, expected.sort().values), f'nms kept {len(kept)} boxes, not {len(expected)}'
    return errors.figures()


# ---- beside Swin-T ----


def work_of(task: str, device: torch.device, tiny: bool, swin: bool) -> Work:
    model = model_of(task, device, tiny, swin)
    size = TINY_SIZE if tiny else TASKS[task][1]
    made = DATA[task](size, BATCH)

    def run() -> None:
        data = model.data_preprocessor(made, training=True)
        total, _ = loss_of(model, data, torch.bfloat16, device)
        total.backward()
        model.zero_grad(set_to_none=True)

    return Work(run, images=BATCH, pixels=BATCH * size[0] * size[1])


def beside_swin(settings: Settings, task: str, budget: float = 5.0, min_turns: int = 3) -> dict:
    """Forward and backward of a training step, in turns with the same model on Swin-T."""
    gpu_backbones.need_gpu(settings)
    need(task)
    device = settings.device

    def of(name: str) -> Work:
        work = work_of(task, device, settings.tiny, swin=name == 'swin-t')
        gpu_backbones.seconds_of(work, device)
        return work

    works, left_out = gpu_backbones.rivals_too(['msvmamba-t'], ['swin-t'], of)
    return gpu_backbones.in_turns(works, device, ['msvmamba-t'], budget, min_turns) | {'left_out': left_out}


def _on_a_gpu(settings: Settings, run: Callable[[Settings], dict]) -> dict:
    if settings.tiny:
        raise Skip('needs a GPU: the interpreter would take minutes for a detector')
    return run(settings)


CHECKS = [
    Step('tasks/mmcv', operators_of_mmcv, required=False),
    *(Step(f'tasks/{task}', partial(_on_a_gpu, run=partial(against_torch, task=task))) for task in TASKS),
]
TIMINGS = [Step(f'time/tasks/{task}/train', partial(beside_swin, task=task)) for task in TASKS]
