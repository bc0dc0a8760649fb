"""ImageNet-1k classification, 300 epochs of batches of 1,024 images; a config based on this names the backbone.

The authors trained in mixed precision: `--amp`, which needs a GPU.
"""

_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py', 'mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['mmmsvmamba', 'mmmsvmamba.datasets.imagenet'], allow_failed_imports=False)

data_source = (
    'ImageNet-1k (train and val in class folders, all or some of them): https://www.image-net.org/download.php'
)

model = dict(
    type='ImageClassifier',
    backbone=dict(type='MSVMamba', out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
    # one of the two for each batch, with equal chances
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

# The pipelines are those of Swin, which the published runs share: RandAugment (two of rand-m9-mstd0.5-inc1) and erasing
# (0.25, by pixel) in training, without the colour jitter, which timm drops beside RandAugment; 256 pixels bicubic and a
# centre crop of 224 in test. 8 GPUs of 128 images.
train_dataloader = dict(batch_size=128, dataset=dict(type='ImageNetFolders', data_prefix='train'))
val_dataloader = dict(batch_size=128, dataset=dict(type='ImageNetFolders', data_prefix='val'))
test_dataloader = val_dataloader

# The published runs decay every parameter but those with one dimension. The skip weights D had one there; here they
# have a second, for the group of routes. '.D' finds them in the two scans of a cascade, too.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0, custom_keys={'.D': dict(decay_mult=0.0)}),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, by_epoch=True, begin=20, end=300, convert_to_iter_based=True),
]
# `--auto-scale-lr` scales the learning rate to another batch size.
auto_scale_lr = dict(enable=False, base_batch_size=1024)

train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# Saved, tested and validated is a running average of the weights; the validation also looks at the weights themselves
# (`…_origin` in the log).
custom_hooks = [dict(type='EMAHook', momentum=1e-4, evaluate_on_origin=True, priority='ABOVE_NORMAL')]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
