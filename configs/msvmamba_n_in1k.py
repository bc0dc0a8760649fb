"""MSVMamba-N (arXiv), ImageNet-1k, 300 epochs; 77.3 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'checkpoints/vssm_nano_ms_e300.pth'
published_source = (
    'https://drive.google.com/drive/folders/1J41w3ApitQhp2O3wHmJoOs4U032uqebK (save the file there under this name)'
)

model = dict(backbone=dict(arch='nano', drop_path_rate=0.2), head=dict(in_channels=384))
