"""Which law a set of points asks for: Akaike's criterion for small samples (Hurvich & Tsai 1989).

With normal errors of ln L whose variance is fitted too,

    AICc = n ln(2 F / n) + 2 k + 2 k (k + 1) / (n - k - 1),   F = sum r^2 / 2,   k = p + 1.

Among the laws within 2 of the smallest AICc the one with the fewest parameters is taken: an interaction that is not there makes
extrapolation two to three times worse, one that is there and left out seldom does.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sapis_lab.analysis.fit import LawFit

SLACK = 2.0


def aicc(fit: LawFit) -> float | None:
    """AICc of the least-squares fit; None when there are too few points for it to exist (n <= p + 2)."""
    n, k = len(fit.points), fit.law.n_parameters + 1
    if n - k - 1 <= 0:
        return None
    mean_square = max(2.0 * fit.least_squares / n, 1e-30)  # exact data: rounding error decides nothing
    return float(n * np.log(mean_square) + 2 * k + 2 * k * (k + 1) / (n - k - 1))


def select(fits: Mapping[str, LawFit]) -> tuple[str | None, str]:
    """The chosen law's name and one sentence saying why; None when no law was fitted."""
    if not fits:
        return None, "no law could be fitted"
    simplest = min(fits, key=lambda name: fits[name].law.n_parameters)
    scores = {name: aicc(fit) for name, fit in fits.items()}
    known = {name: score for name, score in scores.items() if score is not None}
    missing = [name for name, score in scores.items() if score is None]
    note = f"; AICc is undefined for {', '.join(missing)} (too few points)" if missing else ""
    if not known:
        return simplest, f"{simplest} is the simplest law fitted{note}"
    best = min(known.values())
    chosen = min((name for name in known if known[name] <= best + SLACK), key=lambda name: (fits[name].law.n_parameters, known[name]))
    if len(known) == 1:
        return chosen, f"{chosen} is the only law with a defined AICc{note}"
    others = ", ".join(f"{name} {score - known[chosen]:+.1f}" for name, score in known.items() if name != chosen)
    return chosen, f"{chosen} is the simplest law within {SLACK:g} of the best AICc ({others} relative to it){note}"
