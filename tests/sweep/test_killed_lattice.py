"""A real lattice that is killed ends in the numbers and weights of one that is not; `sapis selftest kill`
does it fifty times."""

from __future__ import annotations

from pathlib import Path

import pytest

from sapis_lab.selftest.kill import Plan, compare


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_lattice_that_is_killed_ends_in_the_same_table_and_weights(tmp_path: Path) -> None:
    found = compare(tmp_path, Plan(kills=8, seeds=1, steps=150), say=print)
    assert sum(found.kills.values()) > 3 and found.sessions > 1
    assert found.n_points == 8 and found.is_same, found
