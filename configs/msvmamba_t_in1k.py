"""MSVMamba-T (arXiv), ImageNet-1k, 300 epochs; 82.8 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'checkpoints/vssm_tiny_ms_e300.pth'
published_source = (
    'https://drive.google.com/drive/folders/1ddNWk89ohcxxMuVEaJ2Y5A6xeBKgA7lU (save the file there under this name)'
)

model = dict(backbone=dict(arch='tiny', drop_path_rate=0.2), head=dict(in_channels=768))
