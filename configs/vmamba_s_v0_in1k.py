"""VMamba-S (first release), ImageNet-1k, 300 epochs; 83.5 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v0cls/vssmsmall_dp03_ckpt_epoch_238.pth'

model = dict(backbone=dict(type='VMamba', arch='small-v0', drop_path_rate=0.3), head=dict(in_channels=768))
