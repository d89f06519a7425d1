"""Tables of N, D and loss with a known law, fitted with little effort."""

from pathlib import Path

import numpy as np

from sapis_lab.analysis.fit import Points
from sapis_lab.analysis.laws import COMPUTE_LAWS, LAWS, law_named
from sapis_lab.analysis.result import Effort
from sapis_lab.analysis.table import Columns, PointTable
from sapis_lab.analysis.table_fit import Questions, fit_points_of

QUICK = Effort(n_bootstrap=0, n_test=19)
TRUE = {"A": 400.0, "B": 410.0, "alpha": 0.34, "beta": 0.28, "E": 1.7}
BY = Columns("N", "D", "loss", by="model")


def lattice(n=5):
    """N and D of n x n points over three decades."""
    n_params, n_frames = np.meshgrid(np.geomspace(1e6, 1e9, n), np.geomspace(1e8, 1e11, n))
    return n_params.ravel(), n_frames.ravel()


def scattered(n=40):
    rng = np.random.default_rng(7)
    return 10 ** rng.uniform(6, 9, n), 10 ** rng.uniform(8, 11, n)


def table(n_params, n_frames, loss, *, columns=None, against=None):
    points = Points(np.asarray(n_params), np.asarray(n_frames), np.asarray(loss))
    columns = columns or Columns("N", "D", "loss")
    return PointTable(points, None, Path("runs.csv"), columns, "0" * 64, against=against)


def noisy(loss, seed=0, noise=0.004):
    return loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss)))


def fitted(sizes=None, *, laws=("n+d", "n+d+e"), questions=None, seed=0):
    """The fit of points that follow `n+d+e`."""
    n_params, n_frames = sizes or lattice()
    loss = noisy(LAWS["n+d+e"].predict(TRUE, n_params, n_frames), seed)
    return fit_points_of(table(n_params, n_frames, loss), laws=laws, effort=QUICK, questions=questions)


def with_questions():
    """Two targets, and four runs left out."""
    return fitted(questions=Questions(((7e9, 4e11), (1e7, 1e9)), ("nd>4e18",)))


def of_compute():
    compute = np.geomspace(1e17, 1e21, 14)
    loss = noisy(COMPUTE_LAWS["c+e"].predict({"A": 3e3, "alpha": 0.2, "E": 1.7}, compute, np.ones(14)))
    found = table(compute, np.ones(14), loss, columns=Columns("C", None, "loss"))
    questions = Questions(((1e22, 1.0),), ("c>5e20",))
    return fit_points_of(found, laws=list(COMPUTE_LAWS), effort=QUICK, questions=questions)


STEPS = {"A": 20.0, "B": 2.0, "F": 30.0, "alpha": 0.5, "beta": 0.4, "sigma": 0.6}
OF_STEPS = Columns("N", "D", "loss", steps="S")


def of_steps(*, ends=(1e5, 1e5, 1e5), laws=("n+d", "n+d+s"), questions=None, bend=0.0):
    """4 N x 3 D x 4 S of `n+d+s`; trainings of each D end at their own S, and `bend` is the rise of ln L with
    the square of the standardised ln S that no law has."""
    rows = [
        (n, d, s)
        for d, end in zip(np.geomspace(50, 5e3, 3), ends, strict=True)
        for n in np.geomspace(3e3, 3e5, 4)
        for s in np.geomspace(1e3, end, 4)
    ]
    n_params, n_frames, steps = (np.array(column) for column in zip(*rows, strict=True))
    loss = noisy(law_named("n+d+s").predict(STEPS, n_params, n_frames, steps), noise=0.01)
    log_s = np.log(steps)
    loss = loss * np.exp(bend * ((log_s - log_s.mean()) / log_s.std()) ** 2)
    points = Points(n_params, n_frames, loss, steps=steps)
    found = PointTable(points, None, Path("runs.csv"), OF_STEPS, "0" * 64)
    return fit_points_of(found, laws=list(laws), effort=QUICK, questions=questions)


def steps_asked():
    """Three targets at two (N, D), and the trainings of the largest N left out."""
    targets = ((1e6, 1e4, 1e6), (1e6, 1e4, 1e5), (3e5, 5e3, 1e6))
    return of_steps(questions=Questions(targets, ("n>2e5",)))


def group(alpha, seed, *, against=None, noise=0.02, columns=BY):
    """25 points of `n+d` whose term in N has one size at N = 1e4, whatever its exponent."""
    n_params, n_frames = (
        a.ravel() for a in np.meshgrid(np.geomspace(1e3, 1e5, 5), np.geomspace(50, 2000, 5))
    )
    params = {"A": 2.0 * 1e4 ** (alpha - 0.45), "B": 3.0, "alpha": alpha, "beta": 0.5}
    loss = noisy(LAWS["n+d"].predict(params, n_params, n_frames), seed, noise)
    return table(n_params, n_frames, loss, columns=columns, against=against)
