"""Multi-scale and flip testing of segmentors in the memory of one scale."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from torch import Tensor

if TYPE_CHECKING:
    from mmseg.structures import SegDataSample

#: Rows whose class scores are normalised at a time, so that no second copy of all of them is ever made.
ROWS = 64


@MODELS.register_module()
class AccumulatingSegTTAModel(BaseTTAModel):
    """Averages the class scores of all augmentations of an image as they come.

    The result is that of mmseg's `SegTTAModel`, which keeps the full-size score maps of every augmentation until the
    last is there: (classes, H, W) float32 for each scale and flip. Here one running sum of that size is kept for each
    image of the batch, whatever the number of augmentations.

    One exception: a head with one output channel. mmseg applies the sigmoid when it predicts, and once more when it
    merges, which lifts every score to one half or more; here it is applied once.

    Args:
        module: the segmentor, a module or its config.
        data_preprocessor: replaces that of a `module` given as a config.
    """

    def test_step(self, data: dict) -> list['SegDataSample']:
        """Predicts a batch.

        Args:
            data: what mmcv's `TestTimeAug` and mmengine's `pseudo_collate` make of a batch: `inputs` and
                `data_samples`, each a list over augmentations of lists over images; an input is a (3, h, w) tensor.

        Returns:
            For each image a sample with `pred_sem_seg` (1, H, W) in the size of the original image and, where the data
            have it, `gt_sem_seg`.
        """
        return self._decide(*self.mean_scores(self.module.test_step(batch) for batch in _augmentations(data)))

    def merge_preds(self, data_samples_list: Sequence[Sequence['SegDataSample']]) -> list['SegDataSample']:
        """Merges predictions that are all there already: for each image, those of all its augmentations.

        The score maps are taken out of the samples, and the first sample of an image becomes its result.
        """
        return self._decide(*self.mean_scores(zip(*data_samples_list, strict=True)))

    def mean_scores(
        self, predictions: Iterable[Sequence['SegDataSample']]
    ) -> tuple[list['SegDataSample'], list[Tensor]]:
        """Averages class scores; takes each augmentation's maps out of its samples before it asks for the next.

        Args:
            predictions: for each augmentation, the samples of the batch with `seg_logits` (classes, H, W) in the size
                of the original image.

        Returns:
            The samples of the first augmentation without their own predictions, and for each the mean over
            augmentations of its class probabilities, (classes, H, W), float32 at least.
        """
        samples, sums, count = [], [], 0
        for batch in predictions:
            for i, sample in enumerate(batch):
                if count == 0:
                    samples.append(sample)
                    sums.append(self._to_scores(sample.seg_logits.data))
                else:
                    self._add_scores(sums[i], sample.seg_logits.data)
                del sample.seg_logits, sample.pred_sem_seg
            count += 1
        for total in sums:
            total /= count
        return samples, sums

    def _to_scores(self, logits: Tensor) -> Tensor:
        """Class probabilities, in the place of the logits unless those are of half precision."""
        if logits.dtype.itemsize < 4:
            logits = logits.float()
        for rows in logits.split(ROWS, dim=1):
            rows.copy_(self._normalised(rows))
        return logits

    def _add_scores(self, total: Tensor, logits: Tensor) -> None:
        for sums, rows in zip(total.split(ROWS, dim=1), logits.split(ROWS, dim=1), strict=True):
            sums += self._normalised(rows.to(sums.dtype))

    def _normalised(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=0) if self.module.out_channels > 1 else logits

    def _decide(self, samples: list['SegDataSample'], scores: list[Tensor]) -> list['SegDataSample']:
        for sample, score in zip(samples, scores, strict=True):
            if self.module.out_channels > 1:
                labels = score.argmax(dim=0, keepdim=True)
            else:
                labels = (score > self.module.decode_head.threshold).to(score)
            sample.set_data(dict(pred_sem_seg=PixelData(data=labels)))
        return samples


def _augmentations(data: dict) -> Iterator[dict]:
    """The batch once for each augmentation."""
    for i in range(len(data['inputs'])):
        yield {key: value[i] for key, value in data.items()}
