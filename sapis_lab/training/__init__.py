"""Training of one point: the only place that knows Lightning. Import `sapis_lab.training.run` to train; this
page is light."""

from sapis_lab.training._config import LossConfig, Parent, PointConfig, TrainConfig

__all__ = ["LossConfig", "Parent", "PointConfig", "TrainConfig"]
