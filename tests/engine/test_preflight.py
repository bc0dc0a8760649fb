"""What is missing or wrong is told before anything is built or written, in one message and with exit code 1."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_data import COCO_CONFIG, REPOSITORY, SHAPES_CONFIG

from mmmsvmamba.engine import cli, preflight
from mmmsvmamba.engine.scopes import SCOPES


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Each test runs in an empty folder and must leave nothing in it but `data`."""
    folder = tmp_path / 'here'
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert {path.name for path in folder.iterdir()} <= {'data'}


@pytest.fixture
def data(shapes, empty_folder) -> Path:
    """A copy of the shapes to spoil."""
    return Path(shutil.copytree(shapes, empty_folder / 'data'))


def refusal(capsys, *arguments: str, command=cli.train) -> str:
    """The message of a command that must refuse."""
    assert command(list(map(str, arguments))) == 1
    output = capsys.readouterr()
    assert output.err.startswith('error: ')
    assert 'Traceback' not in output.err
    return output.err


def spoil(data: Path, **changes) -> Path:
    """Changes top-level keys of the training annotations; None removes one."""
    file = data / 'annotations/instances_train2017.json'
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return file


def test_headline_command_without_data_and_weights(capsys):
    message = refusal(capsys, REPOSITORY / 'configs/mask_rcnn_msvmamba_t_1x.py')
    assert 'data root data/coco/ does not exist' in message
    assert 'checkpoints/vssm_tiny_ms_e300.pth do not exist' in message
    assert 'https://cocodataset.org/#download' in message
    assert 'https://drive.google.com/' in message
    for way_on in ('--data-root DIR', '--pretrained PATH', '--from-scratch', 'python tools/make_shapes.py'):
        assert way_on in message
    assert 'configs/mask_rcnn_msvmamba_n_shapes.py needs neither' in message


def test_shapes_not_drawn_yet(capsys):
    message = refusal(capsys, SHAPES_CONFIG)
    assert 'data root data/shapes/coco/ does not exist' in message
    assert 'Get the data: `python tools/make_shapes.py`' in message
    assert 'needs neither' not in message and '--pretrained' not in message


def test_only_the_weights_are_missing(capsys, shapes):
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', shapes, '--pretrained', 'nowhere.pth')
    assert 'nowhere.pth do not exist' in message and '--from-scratch' in message
    assert 'Get the data' not in message


def test_empty_data_root(capsys, empty_folder):
    (empty_folder / 'data').mkdir()
    assert 'the data root data/ is empty' in refusal(capsys, COCO_CONFIG, '--data-root', 'data', '--from-scratch')


@pytest.mark.parametrize('lost', ['annotations/instances_train2017.json', 'annotations/instances_val2017.json'])
def test_annotation_file_is_missing(capsys, data, lost):
    (data / lost).unlink()
    assert f'annotation file data/{lost} does not exist' in refusal(capsys, SHAPES_CONFIG, '--data-root', 'data')


def test_image_folder_is_missing(capsys, data):
    shutil.rmtree(data / 'val2017')
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', 'data')
    assert 'the folder data/val2017/ (img) does not exist or is empty' in message


@pytest.mark.parametrize('content', [b'', b'{"images": [', b'<html>not found</html>', b'\x89PNG\xff\xfe'])
def test_annotations_are_not_json(capsys, data, content):
    file = data / 'annotations/instances_train2017.json'
    file.write_bytes(content)
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', 'data')
    assert 'instances_train2017.json is not JSON' in message and 'again' in message


@pytest.mark.parametrize(
    'changes, lacking',
    [(dict(annotations=None), 'without annotations'), (dict(images=None, categories={}), 'without images, categories')],
)
def test_annotations_are_not_coco(capsys, data, changes, lacking):
    spoil(data, **changes)
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', 'data')
    assert 'not a COCO annotation file' in message and lacking in message


def test_annotations_are_a_list(capsys, data):
    (data / 'annotations/instances_val2017.json').write_text('[]')
    assert 'not a COCO annotation file' in refusal(capsys, SHAPES_CONFIG, '--data-root', 'data')


def test_annotations_name_missing_images(capsys, data):
    lost = sorted((data / 'train2017').iterdir())[:5]
    for file in lost:
        file.unlink()
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', 'data')
    assert 'names 5 of 8 images that are not in data/train2017/' in message
    assert f'{lost[0].name}, {lost[1].name}, {lost[2].name}, …' in message


def test_annotations_have_other_classes(capsys, data):
    spoil(data, categories=[dict(id=1, name='disc'), dict(id=2, name='square'), dict(id=3, name='dog')])
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', 'data')
    assert '3 categories (disc, square, dog)' in message
    assert 'without 2 of the 4 classes of the dataset (star, triangle)' in message


@pytest.mark.parametrize('head', ['bbox_head', 'mask_head'])
def test_class_count_does_not_fit_a_head(capsys, shapes, head):
    key = f'model.roi_head.{head}.num_classes'
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', shapes, '--cfg-options', f'{key}=5')
    assert f'The dataset has 4 classes (disc, square, star, triangle), but the model has {key} = 5' in message


def test_classes_of_the_library_are_known_without_reading_the_data(capsys, shapes):
    """COCO's 80 classes against a file with four."""
    message = refusal(capsys, COCO_CONFIG, '--data-root', shapes, '--from-scratch')
    assert 'without 80 of the 80 classes of the dataset (person, bicycle, car, motorcycle, …)' in message


def test_segmentation_and_classification_heads_are_checked():
    model = dict(decode_head=[dict(num_classes=3), dict(num_classes=4)], auxiliary_head=dict(num_classes=5))
    with pytest.raises(preflight.UserError) as caught:
        preflight._check_class_count(model, ('a', 'b', 'c'), SCOPES['mmseg'])
    assert 'has model.decode_head[1].num_classes = 4, model.auxiliary_head.num_classes = 5. Make' in str(caught.value)
    with pytest.raises(preflight.UserError, match=r'has model\.head\.num_classes = 6\. Make'):
        preflight._check_class_count(dict(head=dict(num_classes=6)), ('a', 'b', 'c'), SCOPES['mmpretrain'])


@pytest.mark.parametrize(
    'head, fits',
    [
        (dict(num_classes=2), True),
        (dict(num_classes=2, out_channels=1), True),
        (dict(num_classes=1, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)), True),
        (dict(num_classes=1, loss_decode=[dict(type='DiceLoss')]), True),
        (dict(num_classes=1, loss_decode=dict(type='CrossEntropyLoss')), False),
        (dict(num_classes=1), False),
        (dict(num_classes=3), False),
    ],
)
def test_one_channel_with_a_sigmoid_tells_two_classes_apart(head, fits):
    with contextlib.nullcontext() if fits else pytest.raises(preflight.UserError, match='Make them equal'):
        preflight._check_class_count(dict(decode_head=head), ('road', 'rest'), SCOPES['mmseg'])


@pytest.mark.parametrize('option, value', [('arch', 'huge'), ('arhc', 'nano'), ('out_indices', '[0,7]')])
def test_options_that_the_backbone_refuses(capsys, shapes, option, value):
    options = ['--cfg-options', f'model.backbone.{option}={value}']
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', shapes, *options)
    assert message.startswith('error: model.backbone: ')
    assert value.strip('[]')[-1] in message or option in message


def test_unknown_dataset_type(capsys, shapes):
    options = ['--cfg-options', 'train_dataloader.dataset.type=CocoDatset']
    assert 'CocoDatset, which mmdet does not know' in refusal(capsys, SHAPES_CONFIG, '--data-root', shapes, *options)


@pytest.mark.parametrize('arguments', [['--pretrained'], ['--resume']])
def test_truncated_checkpoint(capsys, shapes, tmp_path, arguments):
    file = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(1000))), file)
    file.write_bytes(file.read_bytes()[:2000])
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', shapes, *arguments, file)
    assert 'weights.pth' in message and 'truncated' in message


def test_test_without_a_checkpoint(capsys, shapes):
    message = refusal(capsys, SHAPES_CONFIG, 'nowhere.pth', '--data-root', shapes, command=cli.test)
    assert 'There is no checkpoint nowhere.pth' in message


def test_mmcv_without_operators(capsys, shapes, monkeypatch):
    def no_operators(name):
        raise ModuleNotFoundError("No module named 'mmcv._ext'")

    monkeypatch.setattr(preflight.importlib, 'import_module', no_operators)
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', shapes)
    assert 'mmdet needs the compiled operators of mmcv' in message and 'tools/check_env.py' in message


def test_only_the_first_process_looks(monkeypatch, capsys):
    """The others would read the same large files; the launcher stops them when the first one stops."""
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setattr(cli, '_build_runner', lambda cfg: (_ for _ in ()).throw(preflight.UserError('got here')))
    assert 'got here' in refusal(capsys, COCO_CONFIG)


SCENE = dict(id=0, file_name='a.png')


@pytest.mark.parametrize(
    'changes, problem',
    [
        (dict(categories=[dict(id=1)]), "categories[0] is {'id': 1}; expected an id and a text 'name'"),
        (dict(images=[SCENE | dict(file_name=7)]), "images[0] is {'id': 0, 'file_name': 7}; expected"),
        (dict(images=['a.png']), "images[0] is a.png; expected an id and a text 'file_name'"),
        (dict(images=[dict(id=1)]), "expected an id and a text 'file_name'"),
        (dict(images=[]), 'has no images'),
        (dict(annotations=[]), 'has no annotations'),
        (dict(annotations=[7]), 'annotations[0] is 7; expected an image_id'),
        (dict(annotations=[dict(image_id=999999)]), 'none of its 1 annotations belongs to one of its 8 images'),
    ],
)
def test_annotations_with_entries_that_cannot_be_used(capsys, data, changes, problem):
    file = spoil(data, **changes)
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', 'data')
    assert problem in message and file.name in message


@pytest.mark.parametrize('kind', ['MSVMamba', 'mmengine.MSVMamba'])
def test_neck_does_not_take_the_maps_of_the_backbone(capsys, shapes, kind):
    options = ['--cfg-options', f'model.backbone.type={kind}', 'model.neck.in_channels=[64,128,256,512]']
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', shapes, *options)
    assert 'model.neck.in_channels = [64, 128, 256, 512]' in message and '[48, 96, 192, 384] channels' in message


def test_neck_must_take_the_maps_in_use(capsys, shapes):
    message = refusal(
        capsys, SHAPES_CONFIG, '--data-root', shapes, '--cfg-options', 'model.backbone.out_indices=[1,2,3]'
    )
    assert 'in_channels = [48, 96, 192, 384], but' in message and 'have [96, 192, 384] channels' in message


def test_data_root_is_a_file(capsys, shapes):
    root = shapes / 'annotations/instances_train2017.json'
    assert 'is not a folder' in refusal(capsys, SHAPES_CONFIG, '--data-root', root)


@pytest.mark.parametrize(
    'option',
    [
        'train_dataloader.dataset.pipeline.flip.type=X',
        'train_dataloader.dataset.pipeline.99.type=X',
        'model.backbone.arch.deep=1',
    ],
)
def test_options_that_cannot_be_merged(capsys, option):
    assert f'--cfg-options {option} cannot be merged' in refusal(capsys, SHAPES_CONFIG, '--cfg-options', option)


def test_config_with_a_syntax_error(capsys, tmp_path):
    (tmp_path / 'broken.py').write_text('model = dict(')
    assert 'broken.py is not a valid config' in refusal(capsys, tmp_path / 'broken.py')


@pytest.mark.parametrize('below', ['', 'deeper'])
def test_work_dir_is_a_file(capsys, tmp_path, below):
    (tmp_path / 'taken').write_text('')
    message = refusal(capsys, SHAPES_CONFIG, '--work-dir', tmp_path / 'taken' / below)
    assert f'{tmp_path / "taken"} is a file' in message


def test_what_a_library_refuses_is_one_message(capsys, shapes, tmp_path):
    options = ['--work-dir', tmp_path / 'run', '--cfg-options', 'model.rpn_head.no_such_option=1']
    message = refusal(capsys, SHAPES_CONFIG, '--data-root', shapes, *options)
    assert 'building the run failed: ' in message and 'no_such_option' in message
