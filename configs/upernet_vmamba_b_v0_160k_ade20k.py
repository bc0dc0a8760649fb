"""UperNet with VMamba-B (first release), ADE20K, 160,000 iterations."""

_base_ = ['_base_/upernet_160k_ade20k.py']

# The authors' run began from a file of theirs with drop path 0.5 and no averaged weights; this one they advise instead.
pretrained = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v0cls/vssmbase_dp06_ckpt_epoch_241.pth'

model = dict(
    backbone=dict(
        type='VMamba',
        arch='base-v0',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
