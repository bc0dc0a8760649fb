"""Bad pictures and masks: what can be used is used, what cannot ends the run with one message that names the file."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_data import SHAPES_CONFIG

from mmmsvmamba.engine import cli

pytest.importorskip('mmseg')

BACKBONE = "dict(type='MSVMamba', arch=dict(base='nano', depths=[1, 1, 1, 1], dims=8), out_indices=OUT)"
SCHEDULE = """
custom_imports = dict(imports=['mmmsvmamba'], allow_failed_imports=False)
default_scope = 'SCOPE'
log_level = 'ERROR'
work_dir = 'run'
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-3))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1))
log_processor = dict(by_epoch=False)
"""
SEGMENTATION = """
load = dict(type='LoadImageFromFile')
masks = dict(type='LoadAnnotations')
train_pipeline = [
    load, masks,
    dict(type='RandomResize', scale=(64, 64), ratio_range=(0.9, 1.1), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(48, 48), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]
test_pipeline = [load, dict(type='Resize', scale=(64, 64), keep_ratio=True), masks, dict(type='PackSegInputs')]
norm = dict(type='BN')
head = dict(num_classes=150, channels=8, norm_cfg=norm, align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False))
data_preprocessor = dict(type='SegDataPreProcessor', mean=[128.0] * 3, std=[60.0] * 3, bgr_to_rgb=True, size=(48, 48),
                         pad_val=0, seg_pad_val=255)
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
"""
FCN = """
model = dict(type='EncoderDecoder', data_preprocessor=data_preprocessor, backbone=BACKBONE,
             decode_head=dict(type='FCNHead', in_channels=64, in_index=0, num_convs=1, **head),
             test_cfg=dict(mode='whole'))
"""
UPERNET = """
model = dict(type='EncoderDecoder', data_preprocessor=data_preprocessor, backbone=BACKBONE,
             decode_head=dict(type='UPerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], **head),
             auxiliary_head=dict(type='FCNHead', in_channels=32, in_index=2, num_convs=1, **head),
             test_cfg=dict(mode='whole'))
"""


def dataset(split: str, pipeline: str, batch: int) -> str:
    """A data loader of ADE20K's layout."""
    return f"""dict(batch_size={batch}, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(
    type='ADE20KDataset', data_root='data', pipeline={pipeline},
    data_prefix=dict(img_path='images/{split}', seg_map_path='annotations/{split}')))"""


class Ade:
    """A data set of two images for training and two for validation in the current folder, and a config for it."""

    def __init__(self) -> None:
        for split in ('training', 'validation'):
            for name in ('a', 'b'):
                self.add(split, name)

    def add(self, split: str, name: str, image=None, mask=None, suffix: str = '.jpg') -> None:
        picture = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8) if image is None else image
        labels = np.resize(np.arange(151, dtype=np.uint8), picture.shape[:2]) if mask is None else mask
        for path, array in ((self.image(split, name, suffix), picture), (self.mask(split, name), labels)):
            path.parent.mkdir(parents=True, exist_ok=True)
            # the name says .jpg whatever the content is: only PNG holds 16 bits and transparency
            path.write_bytes(cv2.imencode('.png', array)[1].tobytes())

    def image(self, split: str, name: str, suffix: str = '.jpg') -> Path:
        return Path(f'data/images/{split}/{name}{suffix}')

    def mask(self, split: str, name: str) -> Path:
        return Path(f'data/annotations/{split}/{name}.png')

    def config(self, model: str = FCN, extra: str = '') -> str:
        out = '(0, 1, 2, 3)' if model == UPERNET else '(3,)'
        batch = len(list(Path('data/images/training').iterdir()))
        Path('config.py').write_text(
            SEGMENTATION
            + model.replace('BACKBONE', BACKBONE.replace('OUT', out))
            + f'train_dataloader = {dataset("training", "train_pipeline", max(batch, 1))}\n'
            + f'val_dataloader = {dataset("validation", "test_pipeline", 1)}\n'
            + 'test_dataloader = val_dataloader\n'
            + SCHEDULE.replace('SCOPE', 'mmseg')
            + extra
        )
        return 'config.py'


@pytest.fixture
def ade(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Ade()


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A checkpoint of the FCN, after one iteration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp('trained'))
        assert cli.train([Ade().config()]) == 0
        return Path('run/iter_1.pth').absolute()


def refusal(capsys, config: str, *options: str, checkpoint: Path | None = None) -> str:
    """The only message of a training, or with a checkpoint of a test, that must not go through."""
    arguments = [config, *([str(checkpoint)] if checkpoint else []), *(['--cfg-options', *options] if options else [])]
    capsys.readouterr()
    assert (cli.test if checkpoint else cli.train)(arguments) == 1
    output = capsys.readouterr()
    assert output.err.startswith('error: ') and output.err.count('\n') == 1
    assert 'Traceback' not in output.err + output.out
    return output.err


def test_pictures_of_every_kind_train_and_test(ade, capsys):
    """Grey, 16-bit, transparent, smaller than the crop, one pixel high or wide; masks of 16 bits with small ids."""
    random = np.random.default_rng(1)
    kinds = dict(
        grey=random.integers(0, 255, (40, 56), np.uint8),
        wide=random.integers(0, 65535, (40, 56, 3), np.uint16),
        wide_grey=random.integers(0, 65535, (40, 56), np.uint16),
        transparent=random.integers(0, 255, (40, 56, 4), np.uint8),
        small=random.integers(0, 255, (9, 7, 3), np.uint8),
        row=random.integers(0, 255, (1, 40, 3), np.uint8),
        column=random.integers(0, 255, (40, 1, 3), np.uint8),
    )
    for split in ('training', 'validation'):
        for name, image in kinds.items():
            ade.add(split, name, image)
        ade.add(split, 'wide_mask', mask=np.full((40, 56), 150, np.uint16))
    assert cli.train([ade.config()]) == 0, capsys.readouterr().err
    assert cli.test(['config.py', 'run/iter_1.pth', '--out', 'maps']) == 0, capsys.readouterr().err
    for path in Path('data/annotations/validation').iterdir():
        found = cv2.imread(f'maps/{path.name}', cv2.IMREAD_UNCHANGED)
        # mmseg writes a map of one row as a column
        assert sorted(found.shape) == sorted(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape)


def bad_ids(ade, split):
    labels = np.resize(np.arange(151, dtype=np.uint8), (40, 56))
    labels[3, :7] = 200
    ade.add(split, 'b', mask=labels)
    return [
        f'The mask {ade.mask(split, "b")} of the image {ade.image(split, "b")} has label ids that are no class: 200 (7 '
        'pixels).',
        'The ADE20KDataset has 150 classes and reduce_zero_label=True: expected ids 1 to 150 in the file',
    ]


def other_size(ade, split):
    ade.add(split, 'b', mask=np.ones((56, 40), np.uint8))
    return [
        f'{ade.mask(split, "b")} of',
        'has another size: 40 × 56 pixels (width × height), but the image has 56 × 40',
    ]


def colours(ade, split):
    ade.add(split, 'b', mask=np.ones((40, 56, 3), np.uint8))
    return [f'{ade.mask(split, "b")} of', 'is no label map: it was loaded with 3 channels of uint8']


def wide_ids(ade, split):
    ade.add(split, 'b', mask=np.full((40, 56), 300, np.uint16))
    return [f'{ade.mask(split, "b")} of', 'holds ids up to 300']


def truncated_image(ade, split):
    path = ade.image(split, 'b')
    content = cv2.imencode('.jpg', np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8))[1].tobytes()
    path.write_bytes(content[: len(content) // 3])
    return [f'The image {path} (mask {ade.mask(split, "b")}) cannot be used: the step LoadImageFromFile', 'truncated']


def truncated_mask(ade, split):
    path = ade.mask(split, 'b')
    path.write_bytes(path.read_bytes()[:60])
    return [f'(mask {path}) cannot be used: the step LoadAnnotations', f'{path} (60 bytes) is damaged, truncated or no']


def too_long(ade, split):
    ade.add(split, 'b', image=np.ones((1, 9000, 3), np.uint8))
    step = 'RandomResize > Resize' if split == 'training' else 'Resize'
    return [f'The image {ade.image(split, "b")} ', f'the step {step} of', 'cv2.error', 'has 9000 × 1 pixels']


@pytest.mark.parametrize('spoil', [bad_ids, other_size, colours, wide_ids, truncated_image, truncated_mask, too_long])
def test_bad_training_data(ade, capsys, spoil):
    expected = spoil(ade, 'training')
    message = refusal(capsys, ade.config())
    assert all(part in message for part in expected), message


@pytest.mark.parametrize('spoil', [bad_ids, other_size, truncated_image, too_long])
def test_bad_test_data(ade, capsys, checkpoint, spoil):
    expected = spoil(ade, 'validation')
    message = refusal(capsys, ade.config(), checkpoint=checkpoint)
    assert all(part in message for part in expected), message


def test_bad_validation_data_in_a_training(ade, capsys):
    expected = bad_ids(ade, 'validation')
    message = refusal(capsys, ade.config())
    assert all(part in message for part in expected), message


def test_worker_processes_tell_the_same(ade, capsys):
    expected = truncated_image(ade, 'training')
    message = refusal(capsys, ade.config(), 'train_dataloader.num_workers=1')
    assert all(part in message for part in expected), message


def test_images_that_are_all_given_up(ade, capsys):
    for name in 'ab':
        ade.image('training', name).write_bytes(b'')
    message = refusal(
        capsys,
        ade.config(),
        'train_dataloader.dataset.max_refetch=3',
        'train_dataloader.dataset.pipeline.0.ignore_empty=True',
    )
    assert 'cannot be used, as for the 3 before: the step LoadImageFromFile of the pipeline returned' in message


def no_such_suffix(ade):
    for path in Path('data/images/training').iterdir():
        path.rename(path.with_suffix('.png'))
    return (
        'There are no images in data/images/training that end with .jpg (img_suffix of the dataset): there are 2 .png'
    )


def no_masks(ade):
    for path in Path('data/annotations/training').iterdir():
        path.rename(path.with_suffix('.bmp'))
    return (
        '2 of 2 images in data/images/training have no mask in data/annotations/training: missing are '
        'data/annotations/training/a.png, data/annotations/training/b.png; there are 2 .bmp files'
    )


def one_mask_less(ade):
    ade.mask('validation', 'b').unlink()
    return '1 of 2 images in data/images/validation have no mask in data/annotations/validation: missing are data/ann'


def empty_list(ade):
    Path('data/list.txt').write_text('')
    return 'data/list.txt is empty: it should name the images below data/images/training'


def list_of_other_images(ade):
    Path('data/list.txt').write_text('a\nc\n')
    return 'data/list.txt names 1 of 2 images that are not there: data/images/training/c.jpg.'


@pytest.mark.parametrize('spoil', [no_such_suffix, no_masks, one_mask_less, empty_list, list_of_other_images])
def test_splits_without_files(ade, capsys, spoil):
    expected = spoil(ade)
    options = ['train_dataloader.dataset.ann_file=list.txt'] if Path('data/list.txt').exists() else []
    assert expected in refusal(capsys, ade.config(), *options)
    assert not Path('run').exists()


def test_test_images_without_masks_may_be_predicted(ade, checkpoint, capsys):
    shutil.rmtree('data/annotations/validation')
    extra = """
test_dataloader['dataset']['pipeline'] = [step for step in test_pipeline if step is not masks]
del test_dataloader['dataset']['data_prefix']['seg_map_path']
test_evaluator = dict(type='IoUMetric', format_only=True, output_dir='maps')
"""
    assert cli.test([ade.config(extra=extra), str(checkpoint)]) == 0, capsys.readouterr().err
    assert sorted(path.name for path in Path('maps').iterdir()) == ['a.png', 'b.png']


def test_classes_that_do_not_fit_the_heads(ade, capsys):
    classes = [f'train_dataloader.dataset.metainfo.classes={["wall", "sky"]}'.replace(' ', '')]
    message = refusal(capsys, ade.config(UPERNET), *classes)
    assert 'The dataset has 2 classes (wall, sky), but the model has model.decode_head.num_classes = 150, ' in message
    assert 'model.auxiliary_head.num_classes = 150. Make them equal' in message
    message = refusal(capsys, 'config.py', 'model.auxiliary_head.num_classes=151')
    assert 'The dataset has 150 classes (wall, building, sky, floor, …), but the model has model.aux' in message
    assert not Path('run').exists()


# ---------------------------------------------------------------- the other two libraries


def test_bad_image_of_a_detector(shapes, tmp_path, monkeypatch, capsys):
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    data = Path(shutil.copytree(shapes, 'data'))
    for path in (data / 'train2017').iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert cli.train([SHAPES_CONFIG, '--data-root', 'data', '--work-dir', 'run']) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: The image data/train2017/') and error.count('\n') == 1
    assert 'cannot be used: the step LoadImageFromFile' in error and '(100 bytes) is damaged, truncated' in error


CLASSIFICATION = f"""
model = dict(type='ImageClassifier', backbone={BACKBONE.replace('OUT', '(3,)')}, neck=dict(type='GlobalAveragePooling'),
             head=dict(type='LinearClsHead', num_classes=2, in_channels=64, loss=dict(type='CrossEntropyLoss')))
data_preprocessor = dict(num_classes=2, mean=[128.0] * 3, std=[60.0] * 3, to_rgb=True)
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='data', data_prefix='train',
                 pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
val_dataloader = train_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
{SCHEDULE.replace('SCOPE', 'mmpretrain').replace("test_cfg = dict(type='TestLoop')", '')}
"""


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """One image for each of two classes."""
    pytest.importorskip('mmpretrain')
    monkeypatch.chdir(tmp_path)
    for name in ('cat', 'dog'):
        Path('data/train', name).mkdir(parents=True)
        cv2.imwrite(f'data/train/{name}/1.jpg', np.zeros((32, 32, 3), np.uint8))
    Path('config.py').write_text(CLASSIFICATION)
    return Path('data/train')


def test_bad_image_of_a_classifier(folders, capsys):
    (folders / 'dog/1.jpg').write_bytes(b'')
    message = refusal(capsys, 'config.py')
    assert 'The image data/train/dog/1.jpg cannot be used: the step LoadImageFromFile' in message
    assert 'data/train/dog/1.jpg (0 bytes) is damaged' in message


def test_class_folders_that_do_not_fit(folders, capsys):
    (folders / 'emu').mkdir()
    message = refusal(capsys, 'config.py')
    assert 'The dataset has 3 classes (cat, dog, emu), but the model has model.head.num_classes = 2' in message
    message = refusal(capsys, 'config.py', 'train_dataloader.dataset.classes=[cat,dog]')
    assert 'data/train has 3 folders (cat, dog, emu), but the dataset has 2 classes (cat, dog)' in message


def test_class_folders_without_images(folders, capsys):
    for path in folders.rglob('*.jpg'):
        path.rename(path.with_suffix('.webp'))
    message = refusal(capsys, 'config.py')
    assert 'There are no images in the 2 class folders below data/train: none of its files ends with .bmp, ' in message
    assert 'there are 2 .webp files' in message and not Path('run').exists()


def test_empty_list_of_a_classifier(folders, capsys):
    Path('data/list.txt').write_text('\n')
    message = refusal(capsys, 'config.py', 'train_dataloader.dataset.ann_file=list.txt')
    assert 'data/list.txt is empty: it should name the images below data/train, one a line' in message
