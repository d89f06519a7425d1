"""Which models of a study a figure can be drawn for, or why it cannot."""

from __future__ import annotations

from sapis_lab.analysis.study import ModelAnalysis, StudyAnalysis
from sapis_lab.figures._drawing import NotDrawn


def budget_models(study: StudyAnalysis) -> list[ModelAnalysis] | NotDrawn:
    """Models whose points support a best split of a FLOP budget."""
    models = [m for m in study.models.values() if m.allocation.band is not None]
    if models:
        return models
    reasons = {name: m.allocation.why_not or "" for name, m in study.models.items()}
    if not reasons:
        return NotDrawn("no point has finished")
    if len(set(reasons.values())) == 1:
        return NotDrawn(next(iter(reasons.values())))
    return NotDrawn("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))


def fitted_models(study: StudyAnalysis) -> list[ModelAnalysis] | NotDrawn:
    """Models with a fitted law."""
    models = [m for m in study.models.values() if m.fit is not None]
    return models or NotDrawn("no law could be fitted")
