"""UperNet with Vim on ADE20K, 60,000 iterations of 32 images; a config based on this names the architecture.

Tests slide a window of the training's size over the images, as the authors' do.
"""

_base_ = ['upernet.py', 'ade20k.py', 'mmseg_runtime.py']

model = dict(
    # The maps are ours: the stream behind four blocks, each with a norm. The authors took what these blocks add to it:
    # features='mixer', norm_cfg=dict(type='SyncBN').
    backbone=dict(_delete_=True, type='Vim', out_indices=(5, 11, 17, 23), out_strides=(4, 8, 16, 32)),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)

train_dataloader = dict(batch_size=8)

# What has one dimension in the authors' code is not decayed; that tokens and position embeddings are not is ours.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='BackboneLayerDecayConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.92,
        flat_decay_mult=0.0,
        custom_keys={
            'scan.D': dict(decay_mult=0.0),
            'scan.dt_bias': dict(decay_mult=0.0),
            'cls_token': dict(decay_mult=0.0),
            'pos_embed': dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=60000),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=60000, val_interval=6000)
default_hooks = dict(checkpoint=dict(interval=6000, max_keep_ckpts=3))

# 4 GPUs of 8 images. `--auto-scale-lr` scales the learning rate to another batch size.
auto_scale_lr = dict(enable=False, base_batch_size=32)
