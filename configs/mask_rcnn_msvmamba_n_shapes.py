"""Mask R-CNN with MSVMamba-N on the embedded shapes: needs no download, trains in minutes on a CPU."""

_base_ = ['_base_/mask_rcnn_shapes.py']

model = dict(
    backbone=dict(_delete_=True, type='MSVMamba', arch='nano', out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[48, 96, 192, 384]),
)
