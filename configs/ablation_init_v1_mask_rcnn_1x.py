"""VMamba-Nano with S6 parameters drawn from normal distributions; Mask R-CNN, COCO, 12 epochs."""

_base_ = ['_base_/mask_rcnn_1x.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.init_v1}}, neck=dict(in_channels=[48, 96, 192, 384]))
