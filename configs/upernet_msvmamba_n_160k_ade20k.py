"""UperNet with MSVMamba-N (arXiv), ADE20K, 160,000 iterations."""

_base_ = ['_base_/upernet_160k_ade20k.py']

pretrained = 'checkpoints/vssm_nano_ms_e300.pth'
pretrained_source = (
    'https://drive.google.com/drive/folders/1J41w3ApitQhp2O3wHmJoOs4U032uqebK (save the file there under this name)'
)

model = dict(
    backbone=dict(
        arch='nano',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[48, 96, 192, 384]),
    auxiliary_head=dict(in_channels=192),
)
