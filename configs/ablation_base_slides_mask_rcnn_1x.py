"""The base model of the slides, which was not released; Mask R-CNN, COCO, 12 epochs."""

_base_ = ['_base_/mask_rcnn_1x.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.base_slides}}, neck=dict(in_channels=[128, 256, 512, 1024]))
