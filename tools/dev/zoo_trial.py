"""Tries a model that a config describes: builds it, runs it once, takes one training step on tiny random inputs."""

from __future__ import annotations

import atexit
import copy
import math
import shutil
import string
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from mmmsvmamba.swap.probe import without_weights

#: Sides of the images. The larger ones are for models that failed since their maps were too small: some choose a
#: thousand queries among their pixels, or have maps at a stride of 512.
SIDES = (128, 256, 512)
#: What the messages then say.
TOO_SMALL = ('out of range', 'smaller than', 'too small', 'Kernel size can')
CLASSES = 3
STEPS = ('builds', 'forward', 'loss')


@dataclass
class Trial:
    """How far a model got; `reason` says what went wrong at the first step that failed."""

    builds: bool = False
    forward: bool = False
    loss: bool = False
    reason: str = ''

    def to_dict(self) -> dict:
        return asdict(self)

    @property
    def passed(self) -> bool:
        return self.builds and self.forward and self.loss


def try_model(model: dict, data_preprocessor: dict | None, scope: str, sides: Sequence[int] = SIDES) -> Trial:
    """Builds a model of a config, predicts, and takes the gradients of its loss.

    Args:
        model: As in the config; weights that it names are not read.
        data_preprocessor: The config's own, for a model that has none.
        scope: Of the registry that builds it.
        sides: Of the images; the next is for a model whose maps were too small for it.

    Returns:
        What worked. The loss counts only where it is finite and every parameter of the backbone that it reaches has
        finite gradients, and it reaches some.
    """
    model = without_weights(model)
    if data_preprocessor is not None:
        model.setdefault('data_preprocessor', without_weights(data_preprocessor))
    _replace_downloads(model)
    for side in sides:
        trial = _try_at(copy.deepcopy(model), scope, side)
        if not any(words in trial.reason for words in TOO_SMALL):
            break
    return trial


def _try_at(model: dict, scope: str, side: int) -> Trial:
    trial = Trial()
    torch.manual_seed(0)
    np.random.seed(0)
    progress = MessageHub.get_current_instance()  # some models warm up with what a runner notes there
    for name in ('iter', 'epoch', 'max_iters', 'max_epochs'):
        progress.update_info(name, 1)
    _keep_small(model.get('data_preprocessor'), side)
    for step, work in zip(STEPS, (_build, _predict, _train), strict=True):
        try:
            with MODELS.switch_scope_and_registry(scope):
                model = work(model, scope, side)
        except Exception as error:  # whatever it is, it is the result of the trial
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = str(error).strip() or f'{where.name}: {where.line}'
            trial.reason = f'{step}: {type(error).__name__}: {reason}'.splitlines()[0][:300]
            return trial
        setattr(trial, step, True)
    return trial


def _keep_small(preprocessor: Any, side: int) -> None:
    """Keeps a preprocessor, and one inside it, from padding or resizing the inputs to the size of the recipe."""
    if isinstance(preprocessor, dict):
        if preprocessor.get('size'):
            preprocessor['size'] = (side, side)
        preprocessor.pop('batch_augments', None)
        _keep_small(preprocessor.get('data_preprocessor'), side)


def _replace_downloads(part: Any) -> None:
    """Puts random weights in the place of those that building a model would download."""
    if isinstance(part, list | tuple):
        for value in part:
            _replace_downloads(value)
    elif isinstance(part, dict):
        for option in ('teacher_ckpt', 'postprocess_model'):
            if option in part:
                part[option] = None
        for option, value in part.items():
            if value == 'bert-base-uncased':
                part[option] = _small_bert()
        for value in part.values():
            _replace_downloads(value)


@cache
def _small_bert() -> str:
    """Folder of a language model of two layers, and of a tokenizer that knows letters."""
    from transformers import BertConfig, BertModel

    folder = Path(tempfile.mkdtemp(prefix='bert-'))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    letters = [*string.ascii_lowercase, '.']
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *letters, *(f'##{letter}' for letter in letters)]
    (folder / 'vocab.txt').write_text('\n'.join(words))
    (folder / 'tokenizer_config.json').write_text('{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}')
    BertModel(BertConfig(vocab_size=len(words), num_hidden_layers=2)).save_pretrained(folder)
    return str(folder)


def _build(model: dict, scope: str, side: int) -> nn.Module:
    built = revert_sync_batchnorm(MODELS.build(ConfigDict(model)))
    built.init_weights()  # before that some parameters are whatever was in memory
    return built


def _predict(model: nn.Module, scope: str, side: int) -> nn.Module:
    model.eval()
    with torch.no_grad():
        for inputs, mode in INPUTS[scope](model, False, side):
            data = model.data_preprocessor(inputs, False)
            _run(model, data, mode)
    return model


def _train(model: nn.Module, scope: str, side: int) -> nn.Module:
    model.train()
    for inputs, mode in INPUTS[scope](model, True, side):
        data = model.data_preprocessor(inputs, True)
        losses = _run(model, data, mode)
        total, _ = model.parse_losses(losses)
        if not math.isfinite(total.item()):
            raise ValueError(f'the loss is {total.item()}')
        model.zero_grad()
        total.backward()
        grads = [p.grad for p in _backbone(model).parameters() if p.grad is not None]
        if not grads:
            raise ValueError('no gradient reaches the backbone')
        if not all(torch.isfinite(grad).all() for grad in grads):
            raise ValueError('gradients of the backbone are not finite')
    return model


def _run(model: nn.Module, data: Any, mode: str) -> Any:
    if mode == 'tensor':  # one view of self-supervised training
        return model(data['inputs'][0], mode=mode)
    return model(**data, mode=mode) if isinstance(data, dict) else model(*data, mode=mode)


def _backbone(model: nn.Module) -> nn.Module:
    for owner in (model, getattr(model, 'detector', None), getattr(model, 'student', None)):
        if isinstance(getattr(owner, 'backbone', None), nn.Module):
            return owner.backbone
    raise ValueError(f'{type(model).__name__} has no backbone')


Inputs = list[tuple[Any, str]]


def _detection(model: nn.Module, training: bool, side: int) -> Inputs:
    from mmdet.models import BaseReID, SemiBaseDetector
    from mmdet.models.mot.base import BaseMOTModel

    if isinstance(model, BaseReID):
        return _persons(training)
    if isinstance(model, BaseMOTModel):
        # some trackers train their detector alone, on pictures
        pictures = training and getattr(model.data_preprocessor, 'use_det_processor', False)
        return _pictures(model, training, side) if pictures else _video(training, side)
    if isinstance(model, SemiBaseDetector) and training:
        return _branches(model, side)
    return _pictures(model, training, side)


def _pictures(model: nn.Module, training: bool, side: int) -> Inputs:
    from mmdet.testing import demo_mm_inputs

    count = 2 if training else 1  # some models predict one image at a time
    data = demo_mm_inputs(
        count,
        image_shapes=[(3, side, side)] * count,
        num_items=[2, 3][:count],
        num_classes=CLASSES,
        with_mask=any('mask' in f'{name} {type(part).__name__}'.lower() for name, part in model.named_modules()),
        with_semantic=True,
        texts=[('aa', 'bb', 'cc')] * count,
    )
    for sample in data['data_samples']:
        _complete(sample, side)
        if type(model).__name__ == 'FastRCNN':
            boxes = torch.tensor([[0.0, 0.0, 60.0, 60.0], [30.0, 20.0, 100.0, 110.0], [5.0, 60.0, 90.0, 127.0]])
            sample.proposals = InstanceData(bboxes=boxes, scores=torch.tensor([0.9, 0.8, 0.7]))
    return [(data, 'loss' if training else 'predict')]


def _complete(sample: Any, side: int) -> None:
    """Adds what a pipeline would give; no box is empty, and all are of the class that every model has."""
    size = (side, side)
    sample.set_metainfo(dict(batch_input_shape=size, pad_shape=size, scale_factor=(1.0, 1.0), img_path='demo.png'))
    sample.gt_instances.bboxes += torch.tensor([0.0, 0.0, 1.0, 1.0])
    sample.gt_instances.labels.zero_()


def _video(training: bool, side: int) -> Inputs:
    from mmdet.testing import demo_track_inputs

    key = dict(key_frames_inds=[0]) if training else {}
    data = demo_track_inputs(1, 2, image_shapes=[(3, side, side)], num_items=[3], num_classes=1, with_mask=True, **key)
    for track in data['data_samples']:
        track.set_metainfo(dict(ori_video_length=2, video_id=0))
        for frame in track.video_data_samples:
            _complete(frame, side)
            frame.set_metainfo(dict(ori_video_length=2, video_id=0))
            frame.gt_instances.instances_ids = torch.arange(3)
    return [(data, 'loss' if training else 'predict')]


def _branches(model: nn.Module, side: int) -> Inputs:
    """Pictures with and without labels, as semi-supervised training reads them."""
    branches = [_pictures(model, True, side)[0][0] for _ in range(3)]
    names = ('sup', 'unsup_teacher', 'unsup_student')
    for branch in branches:
        for sample in branch['data_samples']:
            sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
    keys = ('inputs', 'data_samples')
    return [({key: {n: branch[key] for n, branch in zip(names, branches, strict=True)} for key in keys}, 'loss')]


def _persons(training: bool) -> Inputs:
    from mmdet.structures import ReIDDataSample

    generator = torch.Generator().manual_seed(0)
    items = []
    for i in range(4):
        image = torch.randint(256, (3, 256, 128), generator=generator, dtype=torch.uint8)
        sample = ReIDDataSample(metainfo=dict(img_shape=(256, 128), ori_shape=(256, 128)))
        items.append(dict(inputs=image, data_samples=sample.set_gt_label(i // 2)))
    data = pseudo_collate(items)
    return [(data, 'loss' if training else 'predict')]


def _segmentation(model: nn.Module, training: bool, side: int) -> Inputs:
    from mmseg.structures import SegDataSample

    inputs, samples = [], []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        inputs.append(torch.randint(256, (3, side, side), generator=generator, dtype=torch.uint8))
        labels = torch.randint(2, (1, side, side), generator=generator)
        shape = (side, side)
        sample = SegDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, pad_shape=shape, flip=False))
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    return [(dict(inputs=inputs, data_samples=samples), 'loss' if training else 'predict')]


def _classification(model: nn.Module, training: bool, side: int) -> Inputs:
    from mmpretrain.models.selfsup import BaseSelfSupervisor
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(0)

    def picture() -> Tensor:
        return torch.randint(256, (3, side, side), generator=generator, dtype=torch.uint8)

    if isinstance(model, BaseSelfSupervisor):
        views = [torch.stack([picture() for _ in range(4)]) for _ in range(2)]
        data = dict(inputs=views if training else views[:1], data_samples=[DataSample() for _ in range(4)])
        return [(data, 'loss' if training else 'tensor')]
    items = [dict(inputs=picture(), data_samples=DataSample().set_gt_label(i % 2)) for i in range(4)]
    return [(pseudo_collate(items), 'loss' if training else 'predict')]


INPUTS: dict[str, Callable[[nn.Module, bool, int], Inputs]] = {
    'mmdet': _detection,
    'mmseg': _segmentation,
    'mmpretrain': _classification,
}
