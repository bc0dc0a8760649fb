"""Outlines land where the masks are, predictions below the threshold are left out."""

import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle

from mmmsvmamba.engine.contact_sheet import MARGIN, draw_pairs, save, sheet

PALETTE = [(255, 0, 0), (0, 0, 255)]


@pytest.fixture
def data(tmp_path):
    truth = np.zeros((40, 60), np.uint8)
    truth[10:30, 5:25] = 1
    code = rle.encode(np.asfortranarray(truth))
    code['counts'] = code['counts'].decode()
    entry = dict(id=1, image_id=7, category_id=3, iscrowd=0, segmentation=code, bbox=[5, 10, 20, 20], area=400)
    coco = dict(
        info={},
        images=[dict(id=7, file_name='a.png', height=40, width=60)],
        annotations=[entry],
        categories=[dict(id=3, name='disc'), dict(id=5, name='star')],
    )
    (tmp_path / 'a.json').write_text(json.dumps(coco))
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((40, 60, 3), 128, np.uint8))
    return tmp_path


def prediction(score):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 35:55] = 1
    found = dict(labels=np.array([1]), scores=np.array([score]), masks=[rle.encode(np.asfortranarray(mask))])
    return dict(img_id=7, pred_instances=found)


def coloured(picture, rgb):
    """Bounding box (x0, y0, x1, y1) of the pixels of exactly one colour, or None."""
    rows, columns = np.nonzero((picture == np.array(rgb[::-1])).all(-1))
    return (columns.min(), rows.min(), columns.max(), rows.max()) if len(rows) else None


def test_masks_are_outlined_in_their_colours(data):
    [(name, picture)] = draw_pairs(data / 'a.json', data, [prediction(0.9)], PALETTE, zoom=2)
    assert name == 'a.png' and picture.shape == (80, 2 * (120 + 2), 3)
    left, right = picture[:, :122], picture[:, 122:]
    assert np.abs(np.subtract(coloured(left, PALETTE[0]), (10, 20, 49, 59))).max() <= 2
    assert np.abs(np.subtract(coloured(right, PALETTE[1]), (70, 20, 109, 59))).max() <= 2
    assert coloured(left, PALETTE[1]) is None and coloured(right, PALETTE[0]) is None


def test_weak_predictions_are_left_out(data):
    [(_, picture)] = draw_pairs(data / 'a.json', data, [prediction(0.4)], PALETTE)
    assert coloured(picture, PALETTE[1]) is None


def test_missing_image(data):
    (data / 'a.png').unlink()
    with pytest.raises(FileNotFoundError, match='a.png'):
        list(draw_pairs(data / 'a.json', data, [prediction(0.9)], PALETTE))


def test_sheet_and_save(tmp_path):
    page = sheet([np.zeros((10, 20, 3), np.uint8)] * 4, per_row=3)
    assert page.shape == (2 * (10 + MARGIN), 3 * (20 + MARGIN), 3)
    save(page, tmp_path / 'new' / 'page.png')
    assert (cv2.imread(str(tmp_path / 'new' / 'page.png')) == page).all()
