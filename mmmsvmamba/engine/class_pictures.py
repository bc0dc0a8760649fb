"""Pictures of what a classifier predicts. Importing this needs mmpretrain."""

from collections.abc import Sequence
from pathlib import Path

import mmcv
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from mmpretrain.structures import DataSample

#: Smaller pictures are enlarged to this many pixels on their long side, for the text on them.
LEGIBLE = 320


@HOOKS.register_module()
class ClassPictureHook(Hook):
    """Draws the file of every test image with its true and its predicted class.

    mmpretrain's `VisualizationHook` draws the input of the model instead, with red and blue exchanged, cannot draw
    test-time augmentation, and names pictures by the file alone, so that those of two class folders meet.

    Args:
        show: open a window for each image.
        wait_time: seconds that it stays.
        out_dir: folder for the pictures, `<folder of the image>/<its name>.png` below it; None keeps none.
    """

    def __init__(self, show: bool = False, wait_time: float = 0.0, out_dir: str | None = None) -> None:
        self.show = show
        self.wait_time = wait_time
        self.out_dir = out_dir

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[DataSample] | None = None,
    ) -> None:
        visualizer = Visualizer.get_current_instance()
        for sample in outputs or ():
            file = Path(sample.img_path)
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            visualizer.visualize_cls(
                image=image,
                data_sample=sample,
                rescale_factor=max(1.0, LEGIBLE / max(image.shape[:2])),
                name=file.name,
                show=self.show,
                wait_time=self.wait_time,
                out_file=str(Path(self.out_dir, file.parent.name, f'{file.name}.png')) if self.out_dir else None,
            )
