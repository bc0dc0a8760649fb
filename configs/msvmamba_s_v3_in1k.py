"""MSVMamba-S (NeurIPS), ImageNet-1k, 300 epochs; 84.1 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://huggingface.co/YuhengSSS/MSVMamba/resolve/main/msvmambav3_small_224.pth'

model = dict(backbone=dict(arch='small-v3', drop_path_rate=0.4), head=dict(in_channels=768))
