"""UperNet with MSVMamba-T (arXiv), ADE20K, 160,000 iterations."""

_base_ = ['_base_/upernet_160k_ade20k.py']

pretrained = 'checkpoints/vssm_tiny_ms_e300.pth'
pretrained_source = (
    'https://drive.google.com/drive/folders/1ddNWk89ohcxxMuVEaJ2Y5A6xeBKgA7lU (save the file there under this name)'
)

model = dict(
    backbone=dict(
        arch='tiny',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
