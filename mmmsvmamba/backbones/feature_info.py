"""What maps a backbone returns, in the form that timm gives to `model.feature_info`."""


class FeatureInfo(list[dict]):
    """One dict for each returned map, with its channels `num_chs`, its stride `reduction` and the layer it leaves.

    `channels()` and `reduction()` are those of timm's `features_only` models.
    """

    def channels(self) -> list[int]:
        return [info['num_chs'] for info in self]

    def reduction(self) -> list[int]:
        return [info['reduction'] for info in self]
