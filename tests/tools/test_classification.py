"""ImageNet classification by the command lines: a cut of ImageNet trains, resumes and is tested at several sizes."""

import pickle
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import published
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image
from published_forward import forward
from tiny_data import REPOSITORY

from mmmsvmamba.engine import cli

CONFIG = str(REPOSITORY / 'configs/msvmamba_n_in1k.py')
SHAPES = str(REPOSITORY / 'configs/msvmamba_n_shapes.py')
LABELS = {'n01440764': 0, 'n07753592': 954, 'n15075141': 999}
SMALL = [
    *(f'{loader}_dataloader.num_workers=0' for loader in ('train', 'val', 'test')),
    *(f'{loader}_dataloader.batch_size=3' for loader in ('train', 'val', 'test')),
    'train_dataloader.dataset.pipeline.1.scale=64',
    'val_dataloader.dataset.pipeline.1.scale=73',
    'val_dataloader.dataset.pipeline.2.crop_size=64',
]


def picture(height: int, width: int, channels: int = 3, dtype=np.uint8) -> np.ndarray:
    """Noise over the whole range of its type."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(height).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


# What cameras and drawing programs also write; each is one of the pictures to test on.
ODD = {
    'grey.png': picture(90, 100, 1),
    'deep.png': picture(91, 100, 3, np.uint16),
    'deep_grey.png': picture(92, 100, 1, np.uint16),
    'transparent.png': picture(93, 100, 4),
    'small.png': picture(20, 12),
    'flat.png': picture(1, 40),
    'thin.png': picture(40, 1),
}


@pytest.fixture(scope='module')
def cut(tmp_path_factory) -> Path:
    """Three of ImageNet's classes: one picture each to train on; two to test on, and the odd ones."""
    root = tmp_path_factory.mktemp('data') / 'imagenet'
    for wnid in LABELS:
        for split in ('train', 'val'):
            (root / split / wnid).mkdir(parents=True)
        cv2.imwrite(str(root / 'train' / wnid / f'{wnid}_1.JPEG'), picture(80, 60))
        for i in range(2):
            cv2.imwrite(str(root / 'val' / wnid / f'{wnid}_{i}.png'), picture(80 + 9 * i, 100))
    for name, image in ODD.items():
        cv2.imwrite(str(root / 'val/n07753592' / name), image)
    return root


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(capsys, run, config: str, *arguments) -> str:
    code = run([config, *map(str, arguments)])
    output = capsys.readouterr()
    assert code == 0, output.err
    return output.out


def predictions(file: str) -> dict[str, dict]:
    """By file name."""
    with open(file, 'rb') as opened:
        return {Path(sample['img_path']).name: sample for sample in pickle.load(opened)}


def test_a_cut_trains_resumes_and_is_tested(cut, here, capsys):
    common = ['--data-root', cut, '--work-dir', 'run']
    options = ['--cfg-options', *SMALL, 'default_hooks.logger.interval=1']
    output = command(capsys, cli.train, CONFIG, *common, *options, 'train_cfg.max_epochs=1')
    [loss] = re.findall(r'Epoch\(train\).* loss: ([\d.]+)', output)
    assert 5 < float(loss) < 9  # log(1000) is 6.9
    # the averaged weights, and the weights themselves
    assert re.search(r'Epoch\(val\).*accuracy/top1: .*accuracy/top5: .*accuracy/top1_origin: ', output)

    output = command(capsys, cli.train, CONFIG, *common, '--resume', *options, 'train_cfg.max_epochs=2')
    assert re.findall(r'Epoch\(train\) +\[(\d)\]', output) == ['2']

    drawing = ['--show-dir', 'pictures', '--out', 'found.pkl', '--input-size', 64]
    output = command(capsys, cli.test, CONFIG, 'run/epoch_2.pth', *common, *drawing, *options, 'visualizer.name=test')
    assert 'accuracy/top1' in output
    found = predictions('found.pkl')
    expected = {path.name: LABELS[path.parent.name] for path in (cut / 'val').rglob('*.png')}
    assert {name: int(sample['gt_label']) for name, sample in found.items()} == expected and len(found) == 13
    assert len(list((here / 'pictures').rglob('*.png'))) == 13

    # kept are the predictions of the averaged weights, which the checkpoint has as its own
    model = MODELS.build(Config.fromfile(CONFIG).model).eval()
    model.load_state_dict(torch.load('run/epoch_2.pth', weights_only=False)['state_dict'])
    [file] = (cut / 'val').rglob('n01440764_0.png')
    with torch.no_grad():
        scores = model(prepared(file, 64)[None])[0].softmax(0)
    torch.testing.assert_close(found[file.name]['pred_score'], scores, atol=1e-5, rtol=1e-3)


def test_augmented_tests_of_averaged_weights(cut, here, capsys):
    """Averages what a test says of every picture and of its mirror image, and draws it."""
    model = MODELS.build(Config.fromfile(CONFIG).model)
    model.init_weights()
    state = model.state_dict()
    averaged = {f'module.{key}': value for key, value in state.items()} | {'steps': torch.tensor(1)}
    torch.save(dict(state_dict=state, ema_state_dict=averaged), 'trained.pth')
    arguments = ['--data-root', cut, '--work-dir', 'run', '--input-size', 64, '--show-dir', 'pictures']
    options = ['--cfg-options', *SMALL, 'visualizer.name=augmented']
    command(capsys, cli.test, CONFIG, 'trained.pth', *arguments, '--tta', '--out', 'found.pkl', *options)
    [file] = (cut / 'val').rglob('n01440764_0.png')
    image = prepared(file, 64)
    with torch.no_grad():
        scores = model.eval()(torch.stack([image, image.flip(2)])).softmax(1).mean(0)
    torch.testing.assert_close(predictions('found.pkl')[file.name]['pred_score'], scores, atol=1e-4, rtol=1e-3)
    assert len(list((here / 'pictures').rglob('*.png'))) == 13


def prepared(file: Path, size: int) -> torch.Tensor:
    """The test's preparation of a picture, by PIL: short side to size · 256 / 224, centre, mean and deviation."""
    with Image.open(file) as opened:
        image = opened.convert('RGB')
    short = round(size * 256 / 224)
    sides = [short * side // min(image.size) for side in image.size]
    image = image.resize(sides, Image.Resampling.BICUBIC)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    pixels = torch.from_numpy(np.array(image.crop((left, top, left + size, top + size)))).float()
    return ((pixels - torch.tensor([123.675, 116.28, 103.53])) / torch.tensor([58.395, 57.12, 57.375])).permute(2, 0, 1)


@published.needs_reference
@pytest.mark.parametrize('size', [48, 96])
def test_a_published_file_predicts_as_published_at_any_size(cut, capsys, size):
    """Scores of the authors' model, written down a second time, on pictures prepared without mmpretrain."""
    weights = published.weights('nano')
    torch.save({'model': {key: weights[key] for key in published.shapes('nano', 'cls')}}, 'vssm_nano_ms_e300.pth')
    arguments = ['--data-root', cut, '--input-size', size, '--out', 'found.pkl', '--cfg-options', *SMALL]
    command(capsys, cli.test, CONFIG, 'vssm_nano_ms_e300.pth', *arguments)
    found = predictions('found.pkl')
    for name in ('n01440764_0.png', 'n15075141_1.png', 'grey.png'):
        [file] = (cut / 'val').rglob(name)
        _, logits = forward(prepared(file, size)[None], weights)
        torch.testing.assert_close(found[name]['pred_score'], logits[0].softmax(0), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize('split', ['train', 'test'])
@pytest.mark.parametrize('name', ODD)
def test_odd_pictures_pass_the_pipelines(cut, split, name):
    cfg = Config.fromfile(CONFIG)
    pipeline = Compose([TRANSFORMS.build(step) for step in cfg[f'{split}_dataloader'].dataset.pipeline])
    for _ in range(3):
        packed = pipeline(dict(img_path=str(cut / 'val/n07753592' / name), gt_label=954))
        assert packed['inputs'].shape == (3, 224, 224) and packed['inputs'].dtype == torch.uint8


@pytest.mark.parametrize(
    'name, expected',
    [
        ('grey.png', np.stack([ODD['grey.png']] * 3, -1)),
        ('deep.png', ODD['deep.png'] // 256),
        ('deep_grey.png', np.stack([ODD['deep_grey.png'] // 256] * 3, -1)),
        ('transparent.png', ODD['transparent.png'][..., :3]),
    ],
)
def test_odd_pictures_are_read_as_8_bit_colours(cut, name, expected):
    """Deep ones are scaled, not clipped; transparency is dropped."""
    load = TRANSFORMS.build(Config.fromfile(CONFIG).test_dataloader.dataset.pipeline[0])
    image = load(dict(img_path=str(cut / 'val/n07753592' / name)))['img']
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image.astype(int), expected.astype(int), atol=1)


@pytest.mark.parametrize(
    'spoil, said',
    [
        (lambda val: (val / 'n15075141').rename(val / 'cats'), 'folders that are no classes of ImageNet-1k: cats'),
        (lambda val: shutil.rmtree(val), r'the folder .*val \(img_path\) does not exist or is empty'),
        (lambda val: [file.unlink() for file in val.rglob('*.png')], '3 class folders and no picture in any of them'),
    ],
)
def test_spoilt_splits_are_told_before_anything_is_written(cut, here, capsys, spoil, said):
    spoil(shutil.copytree(cut, here / 'imagenet') / 'val')
    assert cli.train([CONFIG, '--data-root', 'imagenet', '--work-dir', 'run', '--cfg-options', *SMALL]) == 1
    message = capsys.readouterr().err
    assert re.search(said, message) and 'Traceback' not in message
    assert not (here / 'run').exists()


def test_labels_of_a_list_are_checked_before_anything_is_written(cut, here, capsys):
    (here / 'list.txt').write_text('n01440764/n01440764_1.JPEG 4\n')
    options = [f'{loader}_dataloader.dataset.ann_file={here / "list.txt"}' for loader in ('train', 'val')]
    assert cli.train([SHAPES, '--data-root', str(cut), '--work-dir', 'run', '--cfg-options', *options]) == 1
    assert 'list.txt, line 1: the label 4, but the model has model.head.num_classes = 4' in capsys.readouterr().err
    assert not (here / 'run').exists()


def test_a_published_file_that_is_not_there(cut, capsys):
    assert cli.test([CONFIG, 'checkpoints/vssm_nano_ms_e300.pth', '--data-root', str(cut)]) == 1
    assert 'https://drive.google.com/' in capsys.readouterr().err
