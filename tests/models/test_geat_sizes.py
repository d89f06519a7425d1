"""Which of GEAT's sizes follow the number of parameters."""

import pytest

from sapis_lab.config import identity
from sapis_lab.models.geat import GeatConfig


@pytest.mark.parametrize("n_params", [7e3, 1e5, 1e6])
def test_fixed_sizes_stay_and_the_others_follow(n_params):
    stated = GeatConfig(n_radial=12, invariants=5, coupling=1.0, fixed=("n_radial", "invariants"))
    found = stated.at_size(n_params, n_species=3)
    assert (found.n_radial, found.invariants, found.coupling) == (12, 5, 1.0)
    assert found.n_params(n_species=3) == pytest.approx(n_params, rel=0.1 if n_params > 1e4 else 0.25)
    follows = GeatConfig(n_radial=12, invariants=5, coupling=1.0).at_size(n_params, n_species=3)
    assert (follows.n_radial, follows.invariants) != (12, 5)


def test_nothing_fixed_is_the_identity_of_before():
    assert "fixed" not in identity(GeatConfig())
    assert identity(GeatConfig(fixed=("heads",)))["fixed"] == ["heads"]


def test_fixed_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="heads=5 does not divide channels"):
        GeatConfig(heads=5, channels=40, fixed=("heads",)).at_size(2e4, n_species=3)
