"""VMamba-B (first release), ImageNet-1k, 300 epochs; 83.7 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v0cls/vssmbase_dp06_ckpt_epoch_241.pth'

model = dict(backbone=dict(type='VMamba', arch='base-v0', drop_path_rate=0.6), head=dict(in_channels=1024))
