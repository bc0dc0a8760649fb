"""VMamba-B (s1l20), ImageNet-1k, 300 epochs; 83.8 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v2cls/vssm1_base_0229s_ckpt_epoch_225.pth'

model = dict(backbone=dict(type='VMamba', arch='base-s1l20', drop_path_rate=0.5), head=dict(in_channels=1024))
