"""Pictures of predicted classes: every image has its own, in its own colours, with legible text."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.visualization import Visualizer

pytest.importorskip('mmpretrain')
from mmpretrain.structures import DataSample  # noqa: E402
from mmpretrain.visualization import UniversalVisualizer  # noqa: E402

from mmmsvmamba.engine.class_pictures import ClassPictureHook  # noqa: E402

COLOURS = {'cat': (200, 40, 10), 'dog': (10, 90, 250)}


def test_every_image_in_its_own_colours(tmp_path):
    UniversalVisualizer.get_instance('class pictures')
    assert isinstance(Visualizer.get_current_instance(), UniversalVisualizer)
    samples = []
    for label, (folder, colour) in enumerate(COLOURS.items()):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / '1.png'), np.full((60, 80, 3), colour, np.uint8))
        sample = DataSample(metainfo=dict(img_path=str(tmp_path / folder / '1.png')))
        samples.append(sample.set_gt_label(label).set_pred_score(torch.tensor([0.25, 0.75])).set_pred_label(1))
    ClassPictureHook(out_dir=str(tmp_path / 'pictures')).after_test_iter(None, 0, None, samples)
    drawn = {path.parent.name: cv2.imread(str(path)) for path in (tmp_path / 'pictures').rglob('*.png')}
    assert drawn.keys() == COLOURS.keys()
    for folder, picture in drawn.items():
        assert picture.shape[:2] == (240, 320)
        np.testing.assert_allclose(picture[-20:, -20:], np.broadcast_to(COLOURS[folder], (20, 20, 3)), atol=2)
        assert (picture[:80] != picture[-1, -1]).any(axis=2).mean() > 0.02  # the text
