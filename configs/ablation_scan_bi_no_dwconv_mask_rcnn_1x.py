"""VMamba-Nano that scans by rows and by rows reversed, without depthwise convolutions; Mask R-CNN, COCO, 12 epochs."""

_base_ = ['_base_/mask_rcnn_1x.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.scan_bi_no_dwconv}}, neck=dict(in_channels=[48, 96, 192, 384]))
