"""Training of one point: the only place that knows Lightning. Import `sapis_lab.training.run` to train; this
page is light."""

from sapis_lab.training._config import MOST_RATE, LossConfig, Parent, PointConfig, StepChoice, TrainConfig

__all__ = ["MOST_RATE", "LossConfig", "Parent", "PointConfig", "StepChoice", "TrainConfig"]
