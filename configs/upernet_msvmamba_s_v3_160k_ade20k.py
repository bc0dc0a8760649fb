"""UperNet with MSVMamba-S (NeurIPS), ADE20K, 160,000 iterations."""

_base_ = ['_base_/upernet_160k_ade20k.py']

pretrained = 'https://huggingface.co/YuhengSSS/MSVMamba/resolve/main/msvmambav3_small_224.pth'

# The authors trained no segmentor with this family: the recipe is theirs for the arXiv models, the drop path is ours.
model = dict(
    backbone=dict(
        arch='small-v3',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)

# What the authors call `downsample.3` in this family is a norm without `norm` in its name: decayed.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'downsample.norm': dict(decay_mult=1.0)}))
