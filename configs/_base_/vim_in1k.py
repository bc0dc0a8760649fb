"""ImageNet-1k classification with Vim, 300 epochs of 1,024 images; a config based on this names the architecture.

Optimizer, learning rate, number of epochs and the cosine are the paper's, and so is a running average of the weights.
Warm-up, gradient clipping, the momentum of that average and the augmentation are those of the other configs here, which
are nearly DeiT's; in Vim they are ours. The authors trained without mixed precision.
"""

_base_ = ['in1k.py']

model = dict(backbone=dict(_delete_=True, type='Vim', out_type='cls_token'), neck=None)

# What has one dimension in the authors' code is not decayed, and neither are tokens and position embeddings.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'scan.dt_bias': dict(decay_mult=0.0),
            'cls_token': dict(decay_mult=0.0),
            'pos_embed': dict(decay_mult=0.0),
        }
    )
)
