"""What a pipeline cannot make a sample of is told with the names of its files, the step and the reason."""

import pickle
import re

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile, RandomApply, RandomFlip, Resize
from mmcv.transforms import TestTimeAug as AllAugmentations
from mmengine.dataset import BaseDataset, ClassBalancedDataset, Compose, ConcatDataset, RepeatDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tiny_data import toy_config

from mmmsvmamba.engine.data_guard import DataError, GuardedPipeline, guard_data, guard_dataset
from mmmsvmamba.engine.errors import UserError


class Pictures(BaseDataset):
    """Files of a folder."""

    METAINFO = dict(classes=('thing',))

    def load_data_list(self):
        return [dict(img_path=str(path)) for path in self.data_root]

    def _join_prefix(self):
        pass

    def get_cat_ids(self, idx):
        return [0]


class Fail:
    """A step that raises what it is given."""

    def __init__(self, error):
        self.error = error

    def __call__(self, results):
        raise self.error


class GiveUp:
    """A step that returns None for the first samples."""

    def __init__(self, times):
        self.times = times

    def __call__(self, results):
        self.times -= 1
        return results if self.times < 0 else None


class PutIds:
    """A step of a user's own that replaces an id."""

    def __init__(self, old, new):
        self.old, self.new = old, new

    def __call__(self, results):
        labels = results['gt_seg_map']
        labels[labels == self.old] = self.new
        return results


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f'{name}.png' for name in 'abcd']
    for path in paths:
        cv2.imwrite(str(path), np.full((6, 8, 3), 7, np.uint8))
    return paths


def guarded(paths, steps, **options):
    dataset = Pictures(data_root=paths, pipeline=steps, **options)
    guard_dataset(dataset)
    return dataset


def spoil(path, keep=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def test_a_guarded_pipeline_is_the_pipeline(pictures):
    steps = [LoadImageFromFile(), Resize(scale=(4, 3))]
    plain = Pictures(data_root=pictures, pipeline=steps)
    dataset = guarded(pictures, steps)
    assert isinstance(dataset.pipeline, Compose) and dataset.pipeline.transforms == steps
    assert len(dataset) == 4 and Pictures.__getitem__ is type(dataset).__getitem__
    expected, found = plain[2], pickle.loads(pickle.dumps(dataset))[2]
    assert expected.keys() == found.keys()
    np.testing.assert_array_equal(found['img'], expected['img'])
    pipeline = dataset.pipeline
    guard_dataset(dataset)
    assert dataset.pipeline is pipeline


@pytest.mark.parametrize('damage', ['truncated', 'empty', 'text', 'gone'])
def test_names_the_file_and_the_step_that_could_not_load_it(pictures, damage):
    path = pictures[1]
    if damage == 'gone':
        path.unlink()
    else:
        path.write_bytes({'truncated': path.read_bytes()[:40], 'empty': b'', 'text': b'not found'}[damage])
    dataset = guarded(pictures, [LoadImageFromFile()])
    assert dataset[0]['img'].shape == (6, 8, 3)
    with pytest.raises(DataError) as caught:
        dataset[1]
    message = str(caught.value)
    assert message.startswith(f'The image {path} cannot be used: the step LoadImageFromFile of the pipeline failed')
    if damage == 'gone':
        assert f'There is no file {path}: put it there' in message
    else:
        assert f'{path} ({path.stat().st_size} bytes) is damaged, truncated or no picture: get it again' in message


@pytest.mark.parametrize('size', [(5, 1), (1, 5), (4, 3)])
@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
def test_flipped_images_are_packed_whatever_their_size(tmp_path, library, size):
    """Of one column numpy calls a reversed view contiguous, and the packing steps believe it."""
    transforms = pytest.importorskip(f'{library}.datasets.transforms')
    pack = {'mmdet': 'PackDetInputs', 'mmseg': 'PackSegInputs', 'mmpretrain': 'PackInputs'}[library]
    keys = dict(algorithm_keys=()) if library == 'mmpretrain' else dict(meta_keys=())
    image = np.arange(3 * size[0] * size[1], dtype=np.uint8).reshape(*size, 3)
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    steps = [LoadImageFromFile(), RandomFlip(prob=1.0), getattr(transforms, pack)(**keys)]
    packed = GuardedPipeline(steps)(dict(img_path=str(tmp_path / 'image.png')))
    np.testing.assert_array_equal(packed['inputs'].numpy(), image[:, ::-1].transpose(2, 0, 1))


def test_names_steps_inside_steps(tmp_path):
    """mmcv makes the short side of a long picture 0 pixels."""
    path = tmp_path / 'long.png'
    cv2.imwrite(str(path), np.zeros((1, 900, 3), np.uint8))
    steps = [LoadImageFromFile(), RandomApply([Resize(scale=(8, 8), keep_ratio=True)], prob=1.0)]
    with pytest.raises(DataError) as caught:
        guarded([path], steps)[0]
    assert 'the step RandomApply > Resize of the pipeline failed with cv2.error: OpenCV' in str(caught.value)
    assert 'The image was read and has 900 × 1 pixels: change the options of this step' in str(caught.value)


def test_names_steps_that_are_tried_in_all_combinations(pictures):
    steps = [LoadImageFromFile(), AllAugmentations([[RandomFlip(prob=0.0)], [Fail(KeyError('scale'))]])]
    with pytest.raises(DataError, match=r"the step Fail of the pipeline failed with KeyError: 'scale' \(test_data_gua"):
        guarded(pictures, steps)[0]


@pytest.mark.parametrize('error', [ValueError(), UserError('clear already'), RuntimeError('long ' * 200)])
def test_reasons(pictures, error):
    with pytest.raises(DataError) as caught:
        guarded(pictures, [Fail(error)])[0]
    message = str(caught.value)
    if isinstance(error, UserError):
        assert message == 'clear already'
    else:
        assert 'Fail of the pipeline failed with ' + type(error).__name__ in message and len(message) < 700


def test_lets_an_interruption_through(pictures):
    with pytest.raises(KeyboardInterrupt):
        guarded(pictures, [Fail(KeyboardInterrupt())])[0]


@pytest.mark.parametrize('workers', [0, 1])
def test_one_message_whatever_process_loads(pictures, workers):
    spoil(pictures[0])
    loader = torch.utils.data.DataLoader(guarded(pictures, [LoadImageFromFile()]), num_workers=workers)
    batches = iter(loader)
    with pytest.raises(DataError) as caught:
        next(batches)
    if workers:
        batches._shutdown_workers()  # the garbage collector would wait 5 seconds for the worker
    message = str(caught.value)
    assert message.startswith(f'The image {pictures[0]} cannot be used') and message.endswith('out of the data set.')
    assert 'Traceback' not in message and 'worker' not in message and message.count('cannot be used') == 1


def test_keeps_a_message_of_several_lines_across_processes():
    wrapped = torch._utils.ExceptionWrapper((DataError, DataError('one: 1\n\ntwo: 2'), None), 'in DataLoader worker')
    with pytest.raises(DataError) as caught:
        wrapped.reraise()
    assert str(caught.value) == 'one: 1\n\ntwo: 2'


def test_samples_that_are_given_up_now_and_then_are_drawn_again(pictures):
    dataset = guarded(pictures, [GiveUp(times=3)], max_refetch=3)
    assert dataset[0]['img_path']
    dataset.pipeline.transforms[0].times = 3
    assert dataset[0]['img_path']


def test_samples_that_are_always_given_up(pictures):
    with pytest.raises(DataError, match='cannot be used, as for the 4 before: the step GiveUp'):
        guarded(pictures, [GiveUp(times=9)], max_refetch=4)[0]
    with pytest.raises(DataError, match='cannot be used: the step GiveUp of the pipeline returned nothing'):
        guarded(pictures, [GiveUp(times=9)], test_mode=True)[0]


def wrapped_in(kind, paths, steps):
    dataset = Pictures(data_root=paths, pipeline=steps)
    if kind == 'repeat':
        return RepeatDataset(dataset, times=2)
    if kind == 'concat':
        return ConcatDataset([Pictures(data_root=paths[1:], pipeline=steps), dataset])
    if kind == 'balanced':
        return ClassBalancedDataset(dataset, oversample_thr=1e-3)
    if kind == 'subset':
        return torch.utils.data.Subset(dataset, [1, 0])
    if kind == 'sliced':
        from mmengine.runner.runner import _SlicedDataset

        return _SlicedDataset(dataset, 2)
    if kind == 'folds':
        config = dict(type=Pictures, data_root=paths, pipeline=steps)
        return pytest.importorskip('mmpretrain.datasets').KFoldDataset(config, fold=1, num_splits=2)
    return torch.utils.data.Subset(torch.utils.data.ConcatDataset([RepeatDataset(dataset, times=2)]), [4])


@pytest.mark.parametrize('kind', ['repeat', 'concat', 'balanced', 'subset', 'sliced', 'folds', 'nested'])
def test_guards_the_datasets_inside_wrappers(pictures, kind):
    spoil(pictures[0])
    dataset = wrapped_in(kind, pictures, [LoadImageFromFile()])
    length = len(dataset)
    guard_dataset(dataset)
    assert len(dataset) == length
    with pytest.raises(DataError, match=re.escape(str(pictures[0]))):
        for i in range(length):
            dataset[i]


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
def test_guards_the_steps_that_mix_several_images(pictures, library):
    datasets = pytest.importorskip(f'{library}.datasets')
    inner = Pictures(data_root=pictures, pipeline=[LoadImageFromFile()])
    dataset = datasets.MultiImageMixDataset(ConcatDataset([inner]) if library == 'mmseg' else inner, pipeline=[])
    asked = []

    class Mix:
        def get_indexes(self, data):
            asked.append(len(data))
            return [1]

        get_indices = get_indexes

        def __call__(self, results):
            if self.broken:
                raise ValueError('no place')
            return results

        broken = False

    mix = Mix()
    dataset.pipeline, dataset.pipeline_types = [mix], ['Mix']
    guard_dataset(dataset)
    assert dataset[0]['img'].shape == (6, 8, 3) and asked == [4]
    mix.broken = True
    with pytest.raises(DataError) as caught:
        dataset[0]
    assert f'One of the images {pictures[0]}, {pictures[1]} cannot be used: the step Mix of' in str(caught.value)
    spoil(pictures[1])
    with pytest.raises(DataError, match=f'The image {pictures[1]} cannot be used: the step LoadImageFromFile'):
        dataset[0]


@pytest.mark.parametrize('switch', [False, True])
def test_guards_what_a_runner_builds_and_what_hooks_put_in_its_place(tmp_path, pictures, switch):
    class Switch(Hook):
        def before_train_epoch(self, runner):
            runner.train_dataloader.dataset.pipeline = Compose([Fail(ValueError('late'))])

    config = toy_config(tmp_path / 'run')
    runner = Runner(**config)
    runner._train_dataloader = dict(
        dataset=dict(type='Pictures', data_root=pictures, pipeline=[Fail(ValueError('early'))]),
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=1,
    )
    from mmengine.registry import DATASETS

    DATASETS.register_module(module=Pictures, force=True)
    before = runner.cfg.pretty_text
    guard_data(runner)
    if switch:
        runner.register_hook(Switch())
    with pytest.raises(DataError, match='late' if switch else 'early'):
        runner.train()
    assert runner.cfg.pretty_text == before
    assert isinstance(runner.train_dataloader.dataset.pipeline, GuardedPipeline)


# ---------------------------------------------------------------- label maps


@pytest.fixture
def segments(tmp_path):
    """Returns a function that writes an image of 4 × 3 pixels with a mask, and loads both as mmseg does."""
    datasets = pytest.importorskip('mmseg.datasets')
    transforms = pytest.importorskip('mmseg.datasets.transforms')
    (tmp_path / 'data').mkdir()

    def load(mask, classes=('a', 'b', 'c'), steps=(), kind=datasets.BaseSegDataset, shape=(3, 4, 3), **options):
        cv2.imwrite(str(tmp_path / 'data/x.jpg'), np.zeros(shape, np.uint8))
        cv2.imwrite(str(tmp_path / 'data/x.png'), np.asarray(mask))
        dataset = kind(
            data_root=str(tmp_path / 'data'),
            metainfo=dict(classes=classes) if classes else None,
            pipeline=[LoadImageFromFile(), Resize(scale_factor=2.0), transforms.LoadAnnotations(), *steps],
            **options,
        )
        guard_dataset(dataset)
        return dataset[0]['gt_seg_map']

    return load


def ids(*values):
    return np.resize(np.array(values, np.uint8), (3, 4))


def test_label_maps_that_fit_are_left_alone(segments):
    np.testing.assert_array_equal(segments(ids(0, 1, 2, 255)), ids(0, 1, 2, 255))
    np.testing.assert_array_equal(segments(ids(0, 1, 3, 255), reduce_zero_label=True), ids(255, 0, 2, 255))
    np.testing.assert_array_equal(segments(ids(0, 1, 2, 9), ignore_index=9), ids(0, 1, 2, 9))
    np.testing.assert_array_equal(segments(ids(0, 1), classes=('road',)), ids(0, 1))
    np.testing.assert_array_equal(segments(ids(0, 77), classes=None), ids(0, 77))


@pytest.mark.parametrize(
    'stored, options, found, expected',
    [
        (ids(0, 1, 2, 3), {}, '3 (3 pixels)', 'ids 0 to 2 in the file, and 255 where'),
        (ids(0, 7, 200, 254), {}, '7 (3 pixels), 200 (3 pixels), 254 (3 pixels)', 'ids 0 to 2 in the file'),
        (ids(0, 1, 3, 4), dict(reduce_zero_label=True), '4 (3 pixels)', 'ids 1 to 3 in the file, and 0 or 255 where'),
        (ids(0, 1, 3, 254), dict(reduce_zero_label=True), '254 (3 pixels)', 'ids 1 to 3 in the file'),
        (ids(0, 1, 2, 9), dict(ignore_index=254), '9 (3 pixels)', 'and 254 or 255 where'),
    ],
)
def test_ids_that_are_no_class_are_named_as_in_the_file(segments, tmp_path, stored, options, found, expected):
    with pytest.raises(DataError) as caught:
        segments(stored, **options)
    message = str(caught.value)
    assert message.startswith(f'The mask {tmp_path}/data/x.png of the image {tmp_path}/data/x.jpg has label ids')
    assert f'that are no class: {found}. The BaseSegDataset has 3 classes' in message and expected in message


@pytest.mark.parametrize('zero', [False, True])
def test_some_of_the_classes_of_a_file(segments, zero):
    """mmseg maps the others to 255; an id that is none of the file's classes stays."""
    datasets = pytest.importorskip('mmseg.datasets')

    class Named(datasets.BaseSegDataset):
        METAINFO = dict(classes=('a', 'b', 'c', 'd'), palette=[[0] * 3] * 4)

    first = int(zero)
    options = dict(kind=Named, classes=('d', 'b'), reduce_zero_label=zero)
    np.testing.assert_array_equal(segments(ids(first, 1 + first, 2 + first, 3 + first), **options), ids(255, 1, 255, 0))
    with pytest.raises(DataError, match=rf'no class: {4 + first} \(6 pixels\).* ids {first} to {3 + first} in the'):
        segments(ids(first, 4 + first), **options)


def test_steps_of_the_users_own_may_put_ids_right(segments):
    np.testing.assert_array_equal(segments(ids(0, 1, 2, 33), steps=[PutIds(33, 255)]), ids(0, 1, 2, 255))
    with pytest.raises(DataError, match=r'no class: 5 \(3 pixels\), as the steps of the pipeline have left them'):
        segments(ids(0, 1, 2, 33), steps=[PutIds(33, 5)])


def test_masks_of_another_size(segments):
    with pytest.raises(DataError, match='has another size: 4 × 6 pixels .*, but the image has 4 × 3'):
        segments(np.zeros((6, 4), np.uint8))
    with pytest.raises(DataError, match=r'has another size: 3 × 4 pixels .*\(EXIF\), set color_type='):
        segments(np.zeros((4, 3), np.uint8))
    with pytest.raises(DataError, match='has another size: 9 in one row pixels'):
        segments(np.zeros((1, 9), np.uint8))


@pytest.mark.parametrize('shape', [(1, 5), (5, 1), (1, 1)])
def test_maps_of_one_row_or_column_keep_two_axes(segments, shape):
    assert segments(np.ones(shape, np.uint8), shape=(*shape, 3)).shape == shape


def test_masks_with_colours_or_wide_ids(segments):
    with pytest.raises(DataError, match='is no label map: it was loaded with 3 channels of uint8'):
        segments(np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(DataError, match='holds ids up to 258, with more than 8 bits each; .* would take 258 for 2'):
        segments(ids(0, 1).astype(np.uint16) + 257)
    np.testing.assert_array_equal(segments(ids(0, 2).astype(np.uint16)), ids(0, 2))


def test_label_maps_are_checked_under_test_time_augmentation(segments):
    transforms = pytest.importorskip('mmseg.datasets.transforms')
    datasets = pytest.importorskip('mmseg.datasets')
    flips = [[RandomFlip(prob=0.0), RandomFlip(prob=1.0, direction='horizontal')], [transforms.LoadAnnotations()]]

    class Augmented(datasets.BaseSegDataset):
        def __init__(self, **options):
            super().__init__(**options | dict(pipeline=[LoadImageFromFile(), AllAugmentations(flips)]))

    assert len(segments(ids(0, 1), kind=Augmented)) == 2
    with pytest.raises(DataError, match=r'no class: 3 \(6 pixels\)'):
        segments(ids(0, 3), kind=Augmented)
