"""UperNet with Vim-S, ADE20K, 60,000 iterations; the authors report 44.9 mIoU for theirs."""

_base_ = ['_base_/upernet_vim_60k_ade20k.py']

pretrained = 'https://huggingface.co/hustvl/Vim-small-midclstok/resolve/main/vim_s_midclstok_80p5acc.pth'

# The authors' script overrides their config: layer_decay_rate=0.95.
model = dict(
    backbone=dict(arch='small', init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    decode_head=dict(in_channels=[384, 384, 384, 384], channels=384),
    auxiliary_head=dict(in_channels=384),
)
