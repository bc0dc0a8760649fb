"""The Tiny model with MS2D alone, of the slides; Mask R-CNN, COCO, 12 epochs."""

_base_ = ['_base_/mask_rcnn_1x.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.tiny_ms2d}}, neck=dict(in_channels=[96, 192, 384, 768]))
