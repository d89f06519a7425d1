"""The best learning rate (or batch size) against N, one panel a model and setting, with the fitted rule."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from sapis_lab.analysis.regime import Regime
from sapis_lab.figures._drawing import Drawing, save
from sapis_lab.figures._style import COLUMN, RC, ladder, log_axes, new_figure, number_label, panel_label

_SEVERAL = 6
"""Values of D that are all named in a legend; of more, this many, and no others have lines."""
_LABELS = {"learning_rate": "best peak learning rate", "batch_size": "best batch size"}


def draw_regime(regime: Regime, folder: Path) -> list[Path]:
    """Write regime.pdf, with PNG, CSV and caption, into `folder`; the paths."""
    return save(regime_drawing(regime), folder, name="regime")


def regime_drawing(regime: Regime) -> Drawing:
    """Optima with their 95 % intervals, hollow where they are only the best trial, and the rule as lines, one
    colour for each D."""
    panels = [(model, name, rule) for model in regime.models.values() for name, rule in model.rules.items()]
    parts = []
    with mpl.rc_context(RC):
        figure = new_figure(COLUMN, 0.4 + 2.1 * len(panels))
        for axes, (model, name, rule) in zip(
            figure.subplots(len(panels), squeeze=False).ravel(), panels, strict=True
        ):
            frames = sorted({o.n_frames for o in rule.optima})
            sizes = sorted({o.n_params for o in rule.optima})
            shades = ladder([float(d) for d in frames])
            line = np.geomspace(sizes[0] / 1.3, sizes[-1] * 1.3, 30)
            for k, d in enumerate(frames):
                color, marker = shades[float(d)]
                mine = [o for o in rule.optima if o.n_frames == d]
                x = np.array([o.n_params for o in mine]) * 1.04 ** (
                    (k - (len(frames) - 1) / 2) * min(1.0, _SEVERAL / len(frames))
                )  # side by side
                for o, at in zip(mine, x, strict=True):
                    solid = o.method == "paraboloid"
                    axes.plot(
                        [at, at], [o.low, o.high], color=color, lw=0.9, ls="-" if solid else (0, (2, 2))
                    )
                    axes.plot(
                        at, o.value, color=color, marker=marker, mfc=color if solid else "white", ls="none"
                    )
                if (label := _label(k, frames)) is not None:
                    axes.plot(line, [rule.at(n, d) for n in line], color=color, label=label)
                about = {"model": model.model, "setting": name, "n_frames": d}
                found = [
                    {
                        "part": o.method,
                        **about,
                        "n_params": o.n_params,
                        "value": o.value,
                        "low": o.low,
                        "high": o.high,
                    }
                    for o in mine
                ]
                parts.append(
                    pd.DataFrame(
                        [
                            *found,
                            *({"part": "rule", **about, "n_params": n, "value": rule.at(n, d)} for n in line),
                        ]
                    )
                )
            axes.set_xlabel("trainable parameters N")
            axes.set_ylabel(_LABELS[name])
            log_axes(axes, "xy")
            axes.legend()
            panel_label(axes, model.model)
    caption = (
        f"Optimum of {regime.quantity} by N and D with 95 % intervals, and the rule fitted to it. "
        + " ".join(
            f"{model.model}, {name.replace('_', ' ')}: exponent of N "
            f"{_said(rule.n_exponent, rule.intervals['n_exponent'])}, "
            f"of D {_said(rule.d_exponent, rule.intervals['d_exponent'])}."
            for model, name, rule in panels
        )
    )
    return Drawing(
        figure,
        pd.concat(parts, ignore_index=True),
        caption + " Hollow: the best trial, where no paraboloid could be fitted.",
    )


def _label(k: int, frames: list[int]) -> str | None:
    """The name of the k-th D in a legend."""
    named = np.linspace(0, len(frames) - 1, min(len(frames), _SEVERAL)).round()
    return f"D = {number_label(float(f'{frames[k]:.3g}'))}" if k in named else None


def _said(value: float, interval: tuple[float, float] | None) -> str:
    return "not identified" if interval is None else f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"
