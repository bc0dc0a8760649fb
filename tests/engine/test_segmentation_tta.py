"""Multi-scale testing of segmentors: mmseg's result, without the score maps of all augmentations at once."""

import gc
import weakref
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from tiny_data import REPOSITORY

from mmmsvmamba.engine import testing
from mmmsvmamba.engine.scopes import SCOPES
from mmmsvmamba.engine.segmentation_tta import AccumulatingSegTTAModel

SegTTAModel = pytest.importorskip('mmseg.models').SegTTAModel
CONFIG = REPOSITORY / 'configs/upernet_msvmamba_n_shapes.py'


@pytest.fixture(autouse=True)
def mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def segmentor(mode: str = 'whole') -> torch.nn.Module:
    """The small UperNet of the shapes data set, whose last layer tells its classes apart clearly."""
    torch.manual_seed(0)
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.arch = dict(base='nano', depths=[1, 1, 1, 1], dims=16)
    cfg.model.decode_head.in_channels = [16, 32, 64, 128]
    cfg.model.decode_head.norm_cfg = cfg.model.auxiliary_head.norm_cfg = dict(type='BN')
    cfg.model.auxiliary_head.in_channels = 64
    if mode == 'slide':
        cfg.model.test_cfg = dict(mode='slide', crop_size=(48, 48), stride=(32, 32))
        cfg.model.data_preprocessor.test_cfg = dict(size=(48, 48))  # pads an image that is smaller than the window
    model = MODELS.build(cfg.model).eval()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=3)
    return model


def batch(*sizes: tuple[int, int]) -> dict:
    """Random pictures of these sizes through the pipeline of the config: six scales, each plain and flipped."""
    pipeline = Config.fromfile(CONFIG).tta_pipeline
    transforms = [step for step in pipeline[1].transforms if 'LoadAnnotations' not in str(step)]
    augment = Compose([dict(type='TestTimeAug', transforms=transforms)])
    rng = np.random.default_rng(0)
    samples = []
    for size in sizes:
        image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        samples.append(augment(dict(img=image, img_shape=size, ori_shape=size, img_path='made.png')))
    return pseudo_collate(samples)


def scores_by_definition(model: torch.nn.Module, data: dict) -> list[torch.Tensor]:
    """Mean over all augmentations of the softmax over classes, in float64, with every map kept."""
    steps = [{key: value[i] for key, value in deepcopy(data).items()} for i in range(len(data['inputs']))]
    with torch.no_grad():
        predictions = [[sample.seg_logits.data.double() for sample in model.test_step(step)] for step in steps]
    return [torch.stack([logits.softmax(0) for logits in maps]).mean(0) for maps in zip(*predictions, strict=True)]


@pytest.mark.parametrize('mode', ['whole', 'slide'])
@pytest.mark.parametrize('size', [(64, 64), (75, 101), (130, 33)])
def test_equals_the_definition_and_the_stock_model(mode, size):
    model, data = segmentor(mode), batch(size)
    assert len(data['inputs']) == 12
    ours = AccumulatingSegTTAModel(model)
    with torch.no_grad():
        steps = ({key: value[i] for key, value in deepcopy(data).items()} for i in range(12))
        _, [scores] = ours.mean_scores(model.test_step(step) for step in steps)
        [predicted] = ours.test_step(deepcopy(data))
        [stock] = SegTTAModel(model).test_step(deepcopy(data))
    [expected] = scores_by_definition(model, data)
    assert scores.shape == (5, *size)
    torch.testing.assert_close(scores.double(), expected, atol=1e-5, rtol=0)

    labels = predicted.pred_sem_seg.data
    assert labels.shape == stock.pred_sem_seg.data.shape == (1, *size) and labels.dtype == stock.pred_sem_seg.data.dtype
    top = expected.topk(2, dim=0).values
    clear = top[0] - top[1] > 1e-4
    assert clear.float().mean() > 0.95 and len(labels.unique()) > 1
    assert torch.equal(labels[0][clear], stock.pred_sem_seg.data[0][clear])
    assert predicted.img_path == stock.img_path == 'made.png'


def test_every_image_of_a_batch_has_its_own_scores():
    model, data = segmentor(), batch((64, 48), (64, 48))
    with torch.no_grad():
        first, second = AccumulatingSegTTAModel(model).test_step(deepcopy(data))
    for sample, expected in zip((first, second), scores_by_definition(model, data), strict=True):
        agrees = sample.pred_sem_seg.data[0] == expected.argmax(0)
        assert agrees.float().mean() > 0.99
    assert not torch.equal(first.pred_sem_seg.data, second.pred_sem_seg.data)


def test_merging_given_predictions_is_the_same():
    model, data = segmentor(), batch((64, 48))
    with torch.no_grad():
        steps = [{key: value[i] for key, value in deepcopy(data).items()} for i in range(12)]
        predictions = [model.test_step(step) for step in steps]
        [merged] = AccumulatingSegTTAModel(model).merge_preds(list(zip(*predictions, strict=True)))
        [stepped] = AccumulatingSegTTAModel(model).test_step(deepcopy(data))
    assert torch.equal(merged.pred_sem_seg.data, stepped.pred_sem_seg.data)


class Constant(torch.nn.Module):
    """Stands for a segmentor: the k-th call predicts the k-th of the given logits for every pixel."""

    def __init__(self, logits: list[list[float]], size: tuple[int, int] = (2, 3), dtype=torch.float32):
        super().__init__()
        self.logits = [torch.tensor(values, dtype=dtype)[:, None, None].expand(-1, *size) for values in logits]
        self.out_channels = len(logits[0])
        self.decode_head = SimpleNamespace(threshold=0.3)
        self.given, self.alive = [], []

    def test_step(self, data):
        from mmseg.structures import SegDataSample

        gc.collect()
        self.alive.append(sum(given() is not None for given in self.given))
        sample = SegDataSample(metainfo=dict(img_path='made.png'))
        logits = self.logits[data['inputs']].clone()
        # as mmseg's postprocess_result: one channel comes as a probability
        logits = logits.sigmoid() if self.out_channels == 1 else logits
        self.given.append(weakref.ref(logits))
        sample.set_data(dict(seg_logits=PixelData(data=logits), pred_sem_seg=PixelData(data=logits[:1])))
        return [sample]


def test_no_map_of_an_earlier_augmentation_is_kept():
    logits = [[float(i), 0.0, 1.0] for i in range(6)]
    ours, stock = Constant(logits), Constant(logits)
    data = dict(inputs=list(range(6)))
    AccumulatingSegTTAModel(ours).test_step(data)
    SegTTAModel(stock).test_step(data)
    assert max(ours.alive) <= 1 and stock.alive == [0, 1, 2, 3, 4, 5]


def test_one_channel_is_averaged_as_the_probability_it_is():
    """Two augmentations with 0.1 and 0.2 are below the threshold of 0.3: background."""
    logits = [[float(torch.logit(torch.tensor(p)))] for p in (0.1, 0.2)]
    [sample] = AccumulatingSegTTAModel(Constant(logits)).test_step(dict(inputs=[0, 1]))
    assert sample.pred_sem_seg.data.shape == (1, 2, 3) and not sample.pred_sem_seg.data.any()


def test_half_precision_logits_are_summed_in_float32():
    logits = [[0.1 * i, 0.0] for i in range(12)]
    model = Constant(logits, dtype=torch.bfloat16)
    _, [scores] = AccumulatingSegTTAModel(model).mean_scores(model.test_step(dict(inputs=i)) for i in range(12))
    expected = torch.stack([maps.double().softmax(0) for maps in model.logits]).mean(0)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), expected, atol=1e-6, rtol=0)


def test_stock_model_in_a_config_is_replaced():
    cfg = Config.fromfile(CONFIG)
    cfg.tta_model = dict(type='SegTTAModel')
    testing.set_tta(cfg, SCOPES['mmseg'])
    assert cfg.model.type == 'AccumulatingSegTTAModel' and cfg.model.module.type == 'EncoderDecoder'
