"""Mask R-CNN with an FPN on COCO, 12 epochs of 16 images; a config based on this names the backbone."""

_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmmsvmamba'], allow_failed_imports=False)

model = dict(backbone=dict(_delete_=True, type='MSVMamba', out_indices=(0, 1, 2, 3)))

# The published runs decay every parameter but those with `norm` in the name that the authors gave them; those of the
# norms in the stem had none.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0), 'backbone.stem': dict(decay_mult=1.0)}),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]

# 8 GPUs of 2 images. `--auto-scale-lr` scales the learning rate to another batch size.
auto_scale_lr = dict(enable=False, base_batch_size=16)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
