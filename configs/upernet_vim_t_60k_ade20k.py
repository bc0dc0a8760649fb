"""UperNet with Vim-Ti, ADE20K, 60,000 iterations; the authors report 41.0 mIoU for theirs."""

_base_ = ['_base_/upernet_vim_60k_ade20k.py']

pretrained = 'https://huggingface.co/hustvl/Vim-tiny-midclstok/resolve/main/vim_t_midclstok_76p1acc.pth'

# The authors' script overrides their config: lr=2e-4, weight_decay=0.1.
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    decode_head=dict(in_channels=[192, 192, 192, 192], channels=192),
    auxiliary_head=dict(in_channels=192),
)
