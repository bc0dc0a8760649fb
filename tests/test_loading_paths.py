"""Every way on which OpenMMLab loads weights takes published files, and stops at files that do not fit."""

import copy
from functools import lru_cache
from pathlib import Path

import published
import published_forward
import pytest
import torch
from mmdet.apis import init_detector
from mmdet.registry import MODELS as DET_MODELS
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner, load_checkpoint
from mmpretrain.apis import get_model
from mmseg.apis import init_model as init_segmentor

from mmmsvmamba.checkpoints import CheckpointError, convert_official

pytestmark = [
    published.needs_reference,
    pytest.mark.filterwarnings('ignore:dataset_meta or class names'),
    pytest.mark.filterwarnings('ignore:checkpoint is None'),
]

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
#: One block of each stage: what differs between the ways is not in the blocks.
DEPTHS = [1, 1, 1, 1]
BACKBONE = dict(type='MSVMamba', arch=dict(base='nano', depths=DEPTHS))


@lru_cache
def read_detector_config() -> Config:
    return Config.fromfile(CONFIGS / 'mask_rcnn_msvmamba_n_1x.py')


def detector_config() -> Config:
    """The Mask R-CNN of the nano config with few blocks, and few channels behind the backbone."""
    cfg = copy.deepcopy(read_detector_config())
    model = cfg.model
    model.backbone = dict(BACKBONE)
    model.neck.out_channels = 8
    model.rpn_head.update(in_channels=8, feat_channels=8)
    heads = model.roi_head
    heads.bbox_roi_extractor.out_channels = heads.mask_roi_extractor.out_channels = 8
    heads.bbox_head.update(in_channels=8, fc_out_channels=8)
    heads.mask_head.update(in_channels=8, conv_out_channels=8)
    return cfg


def segmentor_config() -> Config:
    head = dict(type='FCNHead', in_channels=384, in_index=3, channels=8, num_convs=1, num_classes=3)
    model = dict(type='EncoderDecoder', backbone=BACKBONE, decode_head=head, test_cfg=dict(mode='whole'))
    return Config(dict(model=model, default_scope='mmseg'))


def classifier_config() -> Config:
    model = dict(
        type='ImageClassifier',
        backbone=dict(BACKBONE, out_indices=(3,)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=384),
    )
    return Config(dict(model=model, default_scope='mmpretrain'))


class Toy(BaseModel):
    """What a runner can train."""

    def __init__(self):
        super().__init__()
        self.backbone = MODELS.build(BACKBONE)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=sum(out.square().mean() for out in self.backbone(torch.stack(inputs))))


def runner(work_dir: Path, file: Path, resume: bool, epochs: int = 1) -> Runner:
    return Runner(
        model=Toy(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.rand(3, 32, 32))], batch_size=1, sampler=dict(type='DefaultSampler')
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.0, weight_decay=0.05)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1]),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        load_from=str(file),
        resume=resume,
        experiment_name=f'{work_dir.name}_{resume}_{epochs}',
        cfg=Config(),
    )


# ---- the ways: file -> backbone. Those of a whole model take a file in which the backbone is one part. ----


def by_init_cfg(file):
    backbone = MODELS.build(dict(BACKBONE, init_cfg=dict(type='Pretrained', checkpoint=str(file))))
    backbone.init_weights()
    return backbone


def by_init_cfg_with_prefix(file):
    init_cfg = dict(type='Pretrained', checkpoint=str(file), prefix='backbone.')
    backbone = MODELS.build(dict(BACKBONE, init_cfg=init_cfg))
    backbone.init_weights()
    return backbone


def by_init_cfg_in_a_detector(file):
    cfg = detector_config()
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(file))
    detector = DET_MODELS.build(cfg.model)
    detector.init_weights()
    return detector.backbone


@lru_cache
def build_detector():
    return DET_MODELS.build(detector_config().model)


def by_load_checkpoint(file):
    detector = build_detector()
    load_checkpoint(detector, str(file), map_location='cpu')
    return detector.backbone


def by_init_detector(file):
    return init_detector(detector_config(), str(file), device='cpu').backbone


def by_init_segmentor(file):
    return init_segmentor(segmentor_config(), str(file), device='cpu').backbone


def by_get_model(file):
    return get_model(classifier_config(), pretrained=str(file)).backbone


def by_load_from(file):
    loader = runner(file.parent, file, resume=False)
    loader.load_or_resume()
    return loader.model.backbone


def by_resume(file):
    loader = runner(file.parent, file, resume=True)
    loader.load_or_resume()
    return loader.model.backbone


BACKBONE_FILE = (by_init_cfg, by_init_cfg_in_a_detector)
MODEL_FILE = (
    by_init_cfg_with_prefix,
    by_load_checkpoint,
    by_init_detector,
    by_init_segmentor,
    by_get_model,
    by_load_from,
    by_resume,
)


def model_file(weights: dict, path: Path) -> Path:
    """As a trained detector is published."""
    state_dict = {f'backbone.{key}': value for key, value in weights.items()}
    state_dict['neck.lateral_convs.0.conv.bias'] = torch.rand(8)
    meta = dict(epoch=12, iter=7330, dataset_meta=dict(classes=('cat', 'dog')))
    torch.save({'meta': meta, 'state_dict': state_dict}, path)
    return path


def backbone_file(weights: dict, path: Path) -> Path:
    """As the authors publish a classifier."""
    torch.save({'model': weights, 'optimizer': {'state': {}}, 'epoch': 292, 'max_accuracy': 77.3}, path)
    return path


def write(way, weights: dict, path: Path) -> Path:
    return (backbone_file if way in BACKBONE_FILE else model_file)(weights, path)


def make_weights(arch: str = 'nano', depths: list[int] = DEPTHS) -> dict[str, torch.Tensor]:
    shapes = {**published.shapes(arch, 'cls'), **published.shapes(arch, 'backbone')}
    return published.random_weights().make_state_dict(published.shallow(shapes, depths), seed=0)


@pytest.fixture(scope='module')
def weights():
    return make_weights()


@pytest.fixture(scope='module')
def expected(weights):
    """An image, and what the authors' model makes of it."""
    image = torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    return image, *published_forward.forward(image, weights)


@torch.no_grad()
def assert_published(backbone, expected) -> None:
    image, features, _ = expected
    outs = backbone.eval()(image)
    for i, out in zip(backbone.out_indices, outs, strict=True):
        torch.testing.assert_close(out, features[i], atol=5e-5, rtol=0)


@pytest.mark.parametrize('way', [way for way in (*BACKBONE_FILE, *MODEL_FILE) if way is not by_resume])
def test_a_published_file_gives_the_published_features(way, weights, expected, tmp_path):
    assert_published(way(write(way, weights, tmp_path / 'weights.pth')), expected)


def test_a_resumed_training_has_the_weights_it_had(weights, expected, tmp_path):
    first = runner(tmp_path, model_file(weights, tmp_path / 'weights.pth'), resume=False)
    first.train()
    second = runner(tmp_path, tmp_path / 'epoch_1.pth', resume=True, epochs=2)
    second.train()
    assert second.epoch == 2
    assert_published(second.model.backbone, expected)


def test_a_detector_takes_the_rest_of_its_file(weights, tmp_path):
    detector = build_detector()
    file = model_file(weights, tmp_path / 'weights.pth')
    load_checkpoint(detector, str(file), map_location='cpu')
    saved = torch.load(file, weights_only=True)['state_dict']['neck.lateral_convs.0.conv.bias']
    assert torch.equal(detector.neck.lateral_convs[0].conv.bias, saved)


def test_a_converted_classifier_gives_the_published_logits(weights, expected, tmp_path):
    torch.save({'state_dict': convert_official(weights, 'classifier')}, tmp_path / 'weights.pth')
    classifier = get_model(classifier_config(), pretrained=str(tmp_path / 'weights.pth')).eval()
    image, _, logits = expected
    with torch.no_grad():
        torch.testing.assert_close(classifier(image, mode='tensor'), logits, atol=5e-5, rtol=0)


# ---- files that do not fit ----


class Code:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def resnet(weights):
    return {'conv1.weight': torch.rand(64, 3, 7, 7), 'layer1.0.conv1.weight': torch.rand(64, 64, 1, 1)}


def one_key_missing(weights):
    return {key: value for key, value in weights.items() if key != 'layers.2.blocks.0.op.out_proj.weight'}


@pytest.mark.parametrize('way', [*BACKBONE_FILE, *MODEL_FILE])
def test_a_file_of_another_arch_stops_the_run(way, tmp_path):
    file = write(way, make_weights('micro'), tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match=r'mis-shaped: .*\(the model has \('):
        way(file)


@pytest.mark.parametrize(
    'change, said',
    [
        (resnet, 'missing: stem.conv.weight.*unexpected: conv1.weight'),
        (one_key_missing, '1 missing: stages.2.blocks.0.mixer.out_proj.weight'),
    ],
)
@pytest.mark.parametrize('way', [by_init_cfg, by_init_cfg_with_prefix, by_load_checkpoint, by_get_model])
def test_keys_that_do_not_fit_are_named(way, change, said, weights, tmp_path):
    file = write(way, change(weights), tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match=f'(?s){said}'):
        way(file)


@pytest.mark.parametrize('way', [by_load_checkpoint, by_init_segmentor, by_get_model, by_load_from])
def test_a_file_without_a_backbone_stops_the_run(way, tmp_path):
    torch.save({'state_dict': {'neck.lateral_convs.0.conv.bias': torch.rand(8)}, 'meta': {}}, tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match="no weights for this MSVMamba: no key starts with 'backbone.'"):
        way(tmp_path / 'weights.pth')


@pytest.mark.parametrize('way', [by_init_cfg, by_load_checkpoint, by_load_from, by_resume])
def test_a_truncated_file_stops_the_run(way, weights, tmp_path):
    file = write(way, weights, tmp_path / 'weights.pth')
    with file.open('r+b') as opened:
        opened.truncate(file.stat().st_size // 2)
    with pytest.raises(CheckpointError, match='weights.pth .*may be truncated'):
        way(file)


@pytest.mark.parametrize('way', [*BACKBONE_FILE, *MODEL_FILE])
def test_code_in_a_file_does_not_run(way, weights, tmp_path):
    marker = tmp_path / 'marker'
    with_code = {**weights, 'layers.9': Code(marker)}
    file = write(way, with_code, tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match='could run code'):
        way(file)
    assert not marker.exists()


@pytest.mark.parametrize('way', [by_init_cfg, by_load_checkpoint, by_load_from, by_resume])
def test_a_file_that_is_not_there_stops_the_run(way, tmp_path):
    with pytest.raises(FileNotFoundError, match='weights.pth'):
        way(tmp_path / 'weights.pth')


def test_the_code_would_run_where_pickles_are_trusted(tmp_path):
    torch.save(Code(tmp_path / 'marker'), tmp_path / 'weights.pth')
    torch.load(tmp_path / 'weights.pth', weights_only=False)
    assert (tmp_path / 'marker').exists()
