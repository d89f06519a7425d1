"""All forms of a law on a published lattice of materials models, beside the published ones.

optimetal_2b: 7 widths x 7 sizes of data x 3 seeds (arXiv:2602.05702). The published AICc is of the residuals
of L, of the mean over seeds, n ln(RSS / n) + 2 k + 2 k (k + 1) / (n - k - 1); ours are of the same residuals
with our fits, which minimise squares of ln L.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sapis_lab.analysis.fit import LawFit, fit
from sapis_lab.analysis.forms import FORMS
from sapis_lab.analysis.laws import LAWS, SYMBOLS, TIED_LAWS
from sapis_lab.analysis.profile import profiles

PUBLISHED = {"kaplan:break-d": -344.50, "n+d+e:break-d": -253.68}
"""AICc of the table of arXiv:2602.05702, by our name of the form; their breaks have no amplitude of their
own."""
SHOWN = ("kaplan:break-d", "pnorm:break-d")
"""Forms whose parameters are printed, of fits to all runs."""


@dataclass(frozen=True)
class FormScore:
    """One form on the lattice."""

    law: str
    n_parameters: int
    aicc: float
    published: float | None

    @property
    def text(self) -> str:
        known = "" if self.published is None else f"  (published {self.published:.1f})"
        return f"optimetal: {self.law:<22} {self.n_parameters} parameters  AICc {self.aicc:8.1f}{known}"


def scores(folder: Path) -> list[FormScore]:
    """Every form, best first."""
    grid = pd.read_csv(folder / "grid.csv")
    mean = grid.groupby(["n_params", "n_frames"]).loss.mean().reset_index()
    n, d, loss = (mean[c].to_numpy(float) for c in ("n_params", "n_frames", "loss"))
    found = []
    for name in LAWS | TIED_LAWS | FORMS:
        fitted = fit(name, n, d, loss, robust="none")
        k, m = fitted.law.n_parameters, len(loss)
        rss = float(((loss - fitted.predict(n, d)) ** 2).sum())
        value = m * np.log(rss / m) + 2 * k + 2 * k * (k + 1) / (m - k - 1)
        found.append(FormScore(name, k, float(value), PUBLISHED.get(name)))
    return sorted(found, key=lambda score: score.aicc)


def parameters(folder: Path) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Value and 95 % interval of the exponents and the break of the forms that are shown, of all runs."""
    grid = pd.read_csv(folder / "grid.csv")
    n, d, loss = (grid[c].to_numpy(float) for c in ("n_params", "n_frames", "loss"))
    return {name: _of(fit(name, n, d, loss)) for name in SHOWN}


def _of(fitted: LawFit) -> dict[str, tuple[float, float, float]]:
    ends = profiles(fitted)
    return {name: (fitted.params[name], profile.low, profile.high) for name, profile in ends.items()}


def parameters_text(law: str, found: dict[str, tuple[float, float, float]]) -> str:
    """One line."""
    shown = ", ".join(
        f"{SYMBOLS.get(name, name)} {value:.3g} [{low:.3g}, {high:.3g}]"
        for name, (value, low, high) in found.items()
    )
    return f"optimetal: {law}: {shown}"
