"""UperNet on ADE20K, 160,000 iterations of 16 images; a config based on this names the backbone and its channels."""

_base_ = ['upernet.py', 'ade20k.py', 'mmseg_runtime.py']

# The published runs decay every parameter but those with `norm` in the name that the authors gave them; those of the
# norms in the stem had none.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0), 'backbone.stem': dict(decay_mult=1.0)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=160000),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=16000, max_keep_ckpts=3))

# 8 GPUs of 2 images. `--auto-scale-lr` scales the learning rate to another batch size.
auto_scale_lr = dict(enable=False, base_batch_size=16)
