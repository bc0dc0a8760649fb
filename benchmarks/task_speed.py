"""Whole models of the three tasks, from their configs, and how backbone and classifier grow with the image.

The weights are random: what is measured does not depend on their values, with one exception (see `detector`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.structures import BaseDataElement
from registry import Work, workload
from torch import nn

from mmmsvmamba.engine.building import build_model, build_own_backbone
from mmmsvmamba.engine.options import read_config
from mmmsvmamba.engine.scopes import scope_of

CONFIGS = {
    'classification': 'configs/msvmamba_n_in1k.py',
    'detection': 'configs/mask_rcnn_msvmamba_n_1x.py',
    'segmentation': 'configs/upernet_msvmamba_n_160k_ade20k.py',
}
#: Sides of the square images on which growth is measured.
FORWARD_SIDES = (224, 384, 512, 768, 1024, 1536)
TRAIN_SIDES = (224, 384, 512, 768)
#: Image whose turn comes before anything is measured, so that what libraries set up once does not count as growth.
SMALL = (64, 64)

Size = tuple[int, int]


def model_of(task: str, device: torch.device) -> BaseModel:
    cfg = read_config(CONFIGS[task], None)
    if 'data_preprocessor' in cfg:  # mmengine's Runner hands it on; mmpretrain's configs count on that
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(build_model(cfg, scope_of(cfg)))
    return model.to(device).eval()


def detector(device: torch.device) -> BaseModel:
    """The detector, with one class that passes the threshold on scores in every box.

    With random weights none would, and the mask head would have nothing to do; so it has as many boxes as a test
    keeps of an image, 100, as in a crowded picture.
    """
    model = model_of('detection', device)
    nn.init.zeros_(model.roi_head.bbox_head.fc_cls.weight)
    model.roi_head.bbox_head.fc_cls.bias.data[0] = 3.0  # a score of 0.2 among 81
    return model


def sample(task: str, size: Size) -> BaseDataElement:
    """An image's place for predictions, and its label where it is to be learnt."""
    metainfo = dict(ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0))
    if task == 'classification':
        from mmpretrain.structures import DataSample

        return DataSample(metainfo=metainfo).set_gt_label(0)
    if task == 'detection':
        from mmdet.structures import DetDataSample

        return DetDataSample(metainfo=metainfo)
    from mmseg.structures import SegDataSample

    return SegDataSample(metainfo=metainfo)


def random_images(size: Size, batch: int) -> list[torch.Tensor]:
    return list(torch.randint(256, (batch, 3, *size), dtype=torch.uint8))


def predict(device: torch.device, task: str, size: Size, batch: int) -> Work:
    """All that a test does between the loader and the metric: normalisation, model, post-processing."""
    model = detector(device) if task == 'detection' else model_of(task, device)
    images = random_images(size, batch)

    @torch.no_grad()
    def run():
        # new samples every time: a model writes its predictions into them, where they would outlive their turn
        return model.test_step(dict(inputs=images, data_samples=[sample(task, size) for _ in images]))

    return Work(run, images=batch, pixels=batch * size[0] * size[1])


def backbone(device: torch.device, side: int, train: bool) -> Work:
    """The backbone with all four maps, on one image; in training forward and backward, without an optimizer."""
    cfg = read_config(CONFIGS['detection'], None)
    torch.manual_seed(0)
    model = build_own_backbone(cfg, scope_of(cfg)).to(device).train(train)

    def run(image: torch.Tensor) -> None:
        maps = model(image)
        if train:
            sum(x.mean() for x in maps).backward()
            model.zero_grad()

    return growing(run, device, side, train)


def classifier(device: torch.device, side: int, train: bool) -> Work:
    """The whole classifier on one image; in training loss and backward, without an optimizer."""
    model = model_of('classification', device).train(train)

    def run(image: torch.Tensor) -> None:
        samples = [sample('classification', image.shape[2:])]
        if not train:
            model(image, samples, mode='predict')
            return
        model.parse_losses(model(image, samples, mode='loss'))[0].backward()
        model.zero_grad()

    return growing(run, device, side, train)


def growing(
    run: Callable[[torch.Tensor], object], device: torch.device, side: int, train: bool, batch: int = 1
) -> Work:
    """`run` on square images, by default on one, after a small one."""
    if not train:
        run = torch.no_grad()(run)
    run(torch.randn(1, 3, *SMALL, device=device))
    images = torch.randn(batch, 3, side, side, device=device)
    return Work(partial(run, images), images=batch, pixels=batch * side * side)


for _task, _size, _batch in (
    ('classification', (224, 224), 1),
    ('classification', (224, 224), 8),
    ('detection', (800, 1280), 1),
    ('segmentation', (512, 512), 1),
    ('segmentation', (512, 2048), 1),
):
    workload(f'{_task}/predict/{_size[0]}x{_size[1]}/batch{_batch}')(
        partial(predict, task=_task, size=_size, batch=_batch)
    )
for _build in (backbone, classifier):
    for _train, _sides in ((False, FORWARD_SIDES), (True, TRAIN_SIDES)):
        for _side in _sides:
            workload(f'growth/{_build.__name__}/{"train" if _train else "forward"}/{_side}')(
                partial(_build, side=_side, train=_train)
            )
