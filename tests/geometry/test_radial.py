"""The envelope vanishes smoothly, and radial functions are what their formulas say."""

from __future__ import annotations

import math

import torch

from sapis_lab.geometry.radial import envelope, exp_normal_centers, log_envelope

X = torch.linspace(1e-3, 1, 1000, dtype=torch.float64)


def derivatives(x: torch.Tensor, order: int) -> list[torch.Tensor]:
    x = x.clone().requires_grad_(True)
    values = [envelope(x)]
    for _ in range(order):
        values.append(torch.autograd.grad(values[-1].sum(), x, create_graph=True)[0])
    return [v.detach() for v in values]


def test_the_envelope_is_the_published_polynomial() -> None:
    assert (envelope(X) - (1 - 28 * X**6 + 48 * X**7 - 21 * X**8)).abs().max() < 1e-12


def test_the_envelope_and_its_first_two_derivatives_vanish_at_the_cutoff() -> None:
    for value in derivatives(torch.tensor([1.0, 1.5], dtype=torch.float64), 2):
        assert value.abs().max() < 1e-12
    near = derivatives(torch.tensor([1 - 1e-4], dtype=torch.float64), 2)
    assert near[0] < 1e-10 and near[1].abs() < 1e-5 and near[2].abs() < 0.1


def test_the_envelope_falls_from_one_to_zero() -> None:
    f = envelope(X)
    assert abs(f[0] - 1) < 1e-12
    assert (f[1:] <= f[:-1] + 1e-15).all()


def test_the_logarithm_of_the_envelope_keeps_its_digits_in_single_precision() -> None:
    x = X[:-1]
    exact = log_envelope(x)[0]
    assert torch.allclose(exact, envelope(x).log(), rtol=1e-12, atol=1e-12)
    # 1 - x loses digits when x itself is rounded, so compare at the rounded x
    single = x.float()
    assert (log_envelope(single)[0].double() - log_envelope(single.double())[0]).abs().max() < 1e-4


def test_the_slope_of_the_logarithm_is_its_derivative() -> None:
    x = X[:-1].clone().requires_grad_(True)
    value, slope = log_envelope(x)
    (wanted,) = torch.autograd.grad(value.sum(), x)
    assert torch.allclose(slope, wanted, rtol=1e-10, atol=1e-12)


def test_exponential_centres_span_the_range_of_the_exponential() -> None:
    centers, beta = exp_normal_centers(32)
    assert math.isclose(centers[0].item(), math.exp(-5)) and centers[-1] == 1
    assert beta > 0
