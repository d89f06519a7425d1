"""Growth keeps energies, forces, moments and averages, and leaves no unit dead."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sapis_lab.atoms import AtomsBatch
from sapis_lab.config import dump, kind_class, load
from sapis_lab.derivatives import predict
from sapis_lab.growth import expanded, grow
from sapis_lab.models import Model, geat
from sapis_lab.models.geat import Born, GeatConfig
from sapis_lab.potential import Potential, load_potential, save_potential
from sapis_lab.selftest import SPECIES, batch_of, build, random_crystal, random_molecule
from sapis_lab.soap import Soap, is_matrix

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Change of energies relative to sum |E_i| of a frame and of forces relative to the largest."""

SMALL = GeatConfig(
    cutoff=4.0,
    lmax=1,
    layers=2,
    channels=8,
    heads=2,
    invariants=3,
    key_width=2,
    n_radial=6,
    edge_hidden=7,
    coupling=0.5,
    node_hidden=1.5,
)
STEPS: dict[str, dict[str, object]] = {
    "channels": {"channels": 20},
    "channels alone": {"channels": 16, "coupling": 0.25, "node_hidden": 0.75},
    "heads": {"channels": 16, "heads": 4},
    "heads that split": {"heads": 4},
    "heads that split unevenly": {"channels": 15, "heads": 5},
    "invariants": {"invariants": 5},
    "key width": {"key_width": 4},
    "edge network": {"edge_hidden": 11},
    "coupling": {"coupling": 1.0},
    "node network": {"node_hidden": 2.5},
    "degree": {"lmax": 2},
    "two degrees": {"lmax": 3},
    "layers": {"layers": 4},
    "radial functions": {"n_radial": 11},
    "all": {
        "lmax": 2,
        "layers": 3,
        "channels": 20,
        "heads": 4,
        "invariants": 5,
        "key_width": 3,
        "n_radial": 10,
        "edge_hidden": 12,
        "coupling": 0.7,
        "node_hidden": 2.0,
    },
}


def to(config: GeatConfig, **changes: object) -> GeatConfig:
    return GeatConfig.model_validate({**config.model_dump(), **changes})


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def molecules(dtype: torch.dtype, *, cutoff: float = 4.0, block: bool = True) -> AtomsBatch:
    frames = [random_molecule(n, np.random.default_rng(n)) for n in (5, 9, 12)]
    return batch_of(frames, layout="pairs", cutoff=cutoff, dtype=dtype, block=block)


def crystals(dtype: torch.dtype) -> AtomsBatch:
    return batch_of(
        [random_crystal(np.random.default_rng(s)) for s in range(2)], layout="pairs", cutoff=4.0, dtype=dtype
    )


def assert_same_function(a: Model, b: Model, batch: AtomsBatch) -> None:
    with torch.no_grad():
        atomic = a.atomic_energy(a.features(batch.graph.vectors(batch.positions, batch.cell), batch), batch)[
            0
        ]
    scale = atomic.new_zeros(batch.n_frames).index_add(0, batch.batch, (atomic * a.energy_scale).abs())
    x, y = predict(a, batch), predict(b, batch)
    tolerance = TOLERANCE[batch.positions.dtype]
    assert ((x.energy - y.energy).abs() / scale).max() <= tolerance
    assert (x.forces - y.forces).abs().max() / x.forces.abs().max() <= tolerance


def loss_of(model: Model, batch: AtomsBatch) -> Tensor:
    """Of energies and forces, as in training."""
    found = predict(model, batch, differentiable=True)
    target = torch.linspace(-1, 1, found.forces.numel(), dtype=found.forces.dtype).view_as(found.forces)
    return (found.energy - 1).square().sum() + (found.forces - target).square().sum()


def adamw(model: Model) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)


def soap(model: Model) -> torch.optim.Optimizer:
    return Soap(model.parameters(), lr=1e-3)


def trained(
    model: Model,
    batch: AtomsBatch,
    *,
    steps: int = 3,
    of: Callable[[Model], torch.optim.Optimizer] = adamw,
) -> torch.optim.Optimizer:
    optimizer = of(model)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    return optimizer


def unchanged_places(model: Model, config: GeatConfig) -> dict[str, Tensor]:
    """Masks of the entries that have an old value, by name in the larger model."""
    plan = model.growth(config)
    shapes = {
        n: p.shape
        for n, p in plan.config.build(species=SPECIES, mean_neighbors=8.0, seed=0).named_parameters()
    }
    masks = {}
    for name, origin in plan.origins.items():
        mask = torch.full(shapes[name], origin.name is not None)
        for axis, source in enumerate(origin.axes):
            mask &= (source >= 0).view([-1 if a == axis else 1 for a in range(mask.dim())])
        masks[name] = mask
    return masks


# ----------------------------------------------------------------------------------------------- the function


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("step", STEPS)
def test_growth_keeps_energies_and_forces(step: str, dtype: torch.dtype) -> None:
    model = build(SMALL, dtype=dtype, seed=0)
    model.energy_scale.fill_(2.5)
    grown = grow(model, to(SMALL, **STEPS[step]), seed=1)
    assert next(grown.model.parameters()).dtype == dtype
    for batch in (molecules(dtype), molecules(dtype, block=False), crystals(dtype)):
        assert_same_function(model, grown.model, batch)


@pytest.mark.parametrize("lmax", [(0, 1), (0, 2), (1, 2), (1, 3), (2, 4)], ids=str)
@pytest.mark.parametrize("layers", [1, 2])
def test_growth_of_the_degree_keeps_energies_and_forces(lmax: tuple[int, int], layers: int) -> None:
    model = build(to(SMALL, lmax=lmax[0], layers=layers), dtype=torch.float64, seed=0)
    assert_same_function(
        model, grow(model, to(SMALL, lmax=lmax[1], layers=layers), seed=1).model, molecules(torch.float64)
    )


def test_growth_from_12_to_168_thousand_parameters() -> None:
    small = GeatConfig(lmax=1).at_size(12.7e3, n_species=3)
    large = to(GeatConfig(lmax=2, layers=3).at_size(168e3, n_species=3), n_radial=40)
    model = build(small, dtype=torch.float64, seed=0)
    grown = grow(model, large, seed=1)
    assert sum(model.count().values()) < 14e3 and sum(grown.model.count().values()) > 160e3
    assert_same_function(model, grown.model, molecules(torch.float64, cutoff=5.0))


def test_growth_between_all_sizes_of_a_lattice() -> None:
    sizes = [GeatConfig().at_size(n, n_species=3) for n in (3e3, 1e4, 3e4, 1e5)]
    for small, large in zip(sizes[:-1], sizes[1:], strict=True):
        model = build(small, dtype=torch.float64, seed=0)
        assert_same_function(model, grow(model, large, seed=1).model, molecules(torch.float64, cutoff=5.0))


def test_a_model_grows_twice() -> None:
    batch = molecules(torch.float64)
    model = build(SMALL, dtype=torch.float64, seed=0)
    once = grow(model, to(SMALL, channels=12, n_radial=9), seed=1)
    trained(once.model, batch)
    assert isinstance(once.config, GeatConfig)
    twice = grow(once.model, to(once.config, channels=20, n_radial=17, lmax=2), seed=2)
    assert_same_function(once.model, twice.model, batch)
    assert twice.config == to(
        SMALL, channels=20, n_radial=17, lmax=2, born={"channels": 8, "edge_hidden": 7, "n_radial": (6, 9)}
    )
    # settings that know nothing of the past
    fresh = grow(once.model, to(SMALL, channels=20, n_radial=17, lmax=2), seed=2)
    assert fresh.config == twice.config
    # nothing to remember
    assert grow(model, to(SMALL, lmax=2), seed=1).config.model_dump() == to(SMALL, lmax=2).model_dump()
    same = grow(once.model, once.config, seed=3)
    assert same.config == once.config
    assert all(
        torch.equal(p, q) for p, q in zip(once.model.parameters(), same.model.parameters(), strict=True)
    )


def test_appended_radial_functions_have_exact_forces_and_leave_the_old_ones() -> None:
    config, batch = (
        to(SMALL, n_radial=17, born={"channels": 8, "edge_hidden": 7, "n_radial": (6, 11)}),
        molecules(torch.float64),
    )
    model = build(config, dtype=torch.float64, seed=0)  # with random weights for all of them
    positions = batch.positions.clone().requires_grad_(True)
    vectors = batch.graph.vectors(positions, batch.cell)
    energy = model.evaluate(model.features(vectors, batch), batch).energy
    forces = -torch.autograd.grad(energy.sum(), positions)[0]
    assert torch.allclose(
        predict(model, batch).forces, forces, rtol=0, atol=1e-12 * forces.abs().max().item()
    )
    old, new = SMALL.radial_functions(), config.radial_functions()
    assert all(torch.equal(a, b[:6]) for a, b in zip(old, new, strict=True))
    assert torch.allclose(new[0][6:11], (old[0][1:] + old[0][:-1]) / 2)
    assert (new[1].diff(dim=0) >= 0).all() and new[0].shape == new[1].shape == (17, 1)


def test_the_seed_draws_what_is_new_and_nothing_else() -> None:
    model = build(SMALL, dtype=torch.float64, seed=0)
    a, b, c = (grow(model, to(SMALL, **STEPS["all"]), seed=s).model.state_dict() for s in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    known = unchanged_places(model, to(SMALL, **STEPS["all"]))
    assert all(torch.equal(a[name][known[name]], c[name][known[name]]) for name in known)
    assert any(not torch.equal(a[name], c[name]) for name in known)


def test_growth_leaves_the_old_model_and_the_random_state_alone() -> None:
    model = build(SMALL, dtype=torch.float64, seed=0)
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    trained(grow(model, to(SMALL, **STEPS["all"]), seed=1).model, molecules(torch.float64), steps=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_number_of_parameters_of_a_grown_model_is_exact() -> None:
    model = build(SMALL, dtype=torch.float32, seed=0)
    for step in STEPS.values():
        grown = grow(model, to(SMALL, **step), seed=1)
        assert sum(grown.model.count().values()) == grown.config.n_params(n_species=len(SPECIES))
        assert grown.config.n_params(n_species=3) == to(SMALL, **step).n_params(n_species=3) > 0


# ------------------------------------------------------------------------------------------------- dead units


@pytest.mark.parametrize("old", [{}, {"lmax": 0}, {"layers": 1}, {"lmax": 0, "layers": 1}], ids=str)
@pytest.mark.parametrize("step", STEPS)
def test_no_unit_of_a_grown_model_is_dead(step: str, old: Mapping[str, object]) -> None:
    """After one step, every new slice of every parameter has a gradient. Exempt: the bias of a logit, which a
    softmax does not see."""
    small = to(SMALL, **old)
    batch, config = molecules(torch.float64), to(small, **STEPS[step])
    model = build(small, dtype=torch.float64, seed=0)
    grown = grow(model, config, seed=1).model
    known = unchanged_places(model, config)
    trained(grown, batch, steps=1)
    grown.zero_grad()
    loss_of(grown, batch).backward()
    dead = []
    for name, p in grown.named_parameters():
        assert p.grad is not None
        moved, new = p.grad.abs() > 1e-14, ~known[name]
        if name.endswith("edge_out_bias"):
            moved, new = moved[config.heads :], new[config.heads :]
        for axis in range(p.dim()):
            wanted, has = (t.movedim(axis, 0).reshape(t.shape[axis], -1).any(1) for t in (new, moved & new))
            dead += [(name, axis, k) for k in torch.nonzero(wanted & ~has).view(-1).tolist()]
    assert not dead


# ---------------------------------------------------------------------------------------- moments and average


def test_moments_and_average_grow_with_the_weights() -> None:
    batch, config = molecules(torch.float64), to(SMALL, **STEPS["all"])
    model = build(SMALL, dtype=torch.float64, seed=0)
    average = [p.detach().clone() for p in model.parameters()]
    optimizer = trained(model, batch)
    state = copy.deepcopy(optimizer.state_dict())
    grown = grow(model, config, seed=1, optimizer_state=state, average=average)
    known = unchanged_places(model, config)
    assert grown.optimizer_state is not None and grown.average is not None

    averaged, averaged_grown = copy.deepcopy(model), copy.deepcopy(grown.model)
    with torch.no_grad():
        for m, values in ((averaged, average), (averaged_grown, grown.average)):
            for p, value in zip(m.parameters(), values, strict=True):
                p.copy_(value)
    assert_same_function(averaged, averaged_grown, batch)
    assert not torch.equal(predict(averaged, batch).forces, predict(model, batch).forces)

    origins = model.growth(config).origins
    index = {name: i for i, (name, _) in enumerate(model.named_parameters())}
    for i, (name, p) in enumerate(grown.model.named_parameters()):
        entry, old = grown.optimizer_state["state"][i], origins[name].name
        assert entry["exp_avg"].shape == p.shape
        assert not entry["exp_avg"][~known[name]].any()
        assert entry["step"] == (0 if old is None else 3)
        if old is None:
            continue
        factor = grown.model.multipliers()[name] / model.multipliers()[old]
        for key, power in (("exp_avg", 1), ("exp_avg_sq", 2)):
            before = factor**power * state["state"][index[old]][key]
            if power == 2:
                assert torch.allclose(entry[key][~known[name]], before.mean())
            found, wanted = entry[key][known[name]], before.reshape(-1)
            assert torch.allclose(found.aminmax()[0], wanted.min()) and torch.allclose(
                found.aminmax()[1], wanted.max()
            )
            if len(found) == len(wanted):
                assert torch.allclose(found.sort().values, wanted.sort().values)

    after = torch.optim.AdamW(grown.model.parameters(), lr=1e-3, weight_decay=0.0)
    after.load_state_dict(grown.optimizer_state)
    loss = loss_of(grown.model, batch)
    loss.backward()
    after.step()
    assert loss_of(grown.model, batch) < loss


@pytest.mark.parametrize("of", [adamw, soap])
def test_the_next_step_moves_old_weights_as_before(of: Callable[[Model], torch.optim.Optimizer]) -> None:
    """Gradients of old entries are unchanged by growth, hence so is their step, except where a head splits or
    a multiplier changes."""
    batch, config = (
        molecules(torch.float64),
        to(SMALL, channels=16, edge_hidden=11, n_radial=9, key_width=3, invariants=5),
    )
    model = build(SMALL, dtype=torch.float64, seed=0)
    optimizer = trained(model, batch, of=of)
    grown = grow(model, config, seed=1, optimizer_state=optimizer.state_dict())
    after = of(grown.model)
    assert grown.optimizer_state is not None
    after.load_state_dict(grown.optimizer_state)
    for m, o in ((model, optimizer), (grown.model, after)):
        o.zero_grad()
        loss_of(m, batch).backward()
        o.step()
    known = unchanged_places(model, config)
    old, origins = dict(model.named_parameters()), model.growth(config).origins
    for name, p in grown.model.named_parameters():
        source = origins[name].name
        if source is not None:
            x, y = p[known[name]].sort().values, old[source].reshape(-1).sort().values
            assert torch.allclose(x, y, atol=1e-9), name


def test_weights_and_moments_hold_when_the_multipliers_change(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, config = molecules(torch.float64), to(SMALL, channels=16, layers=3)
    model = build(SMALL, dtype=torch.float64, seed=0)
    state = trained(model, batch).state_dict()
    before, wanted = model.multipliers(), predict(model, batch)
    gradients = dict(
        zip(before, torch.autograd.grad(loss_of(model, batch), list(model.parameters())), strict=True)
    )
    for constant, value in (
        ("MAP", 0.4),
        ("REPRESENT", 0.3),
        ("EDGE", 0.7),
        ("NODE", 0.2),
        ("READOUT", 0.11),
    ):
        monkeypatch.setattr(geat, constant, value)
    monkeypatch.setattr(model, "multipliers", lambda: before)
    grown = grow(model, config, seed=1, optimizer_state=state)
    found, known, origins = (
        predict(grown.model, batch),
        unchanged_places(model, config),
        model.growth(config).origins,
    )
    assert torch.allclose(found.energy, wanted.energy, rtol=1e-12) and torch.allclose(
        found.forces, wanted.forces, atol=1e-12
    )
    m = grown.model.multipliers()
    now = dict(
        zip(m, torch.autograd.grad(loss_of(grown.model, batch), list(grown.model.parameters())), strict=True)
    )
    index = {name: i for i, name in enumerate(before)}
    assert grown.optimizer_state is not None
    for i, name in enumerate(now):
        source = origins[name].name
        if source is None:
            continue
        factor = m[name] / before[source]
        x, y = now[name][known[name]].sort().values, (factor * gradients[source]).reshape(-1).sort().values
        assert torch.allclose(x, y, rtol=1e-8, atol=1e-11), name
        for key, power in (("exp_avg", 1), ("exp_avg_sq", 2)):
            new, old = grown.optimizer_state["state"][i][key], state["state"][index[source]][key]
            assert torch.allclose(
                new[known[name]].sort().values,
                (factor**power * old).reshape(-1).sort().values,
                rtol=1e-12,
                atol=0,
            )


@pytest.mark.parametrize("of", [adamw, soap])
def test_an_optimizer_that_took_no_step_grows_to_one_that_took_none(
    of: Callable[[Model], torch.optim.Optimizer],
) -> None:
    model = build(SMALL, dtype=torch.float64, seed=0)
    grown = grow(model, to(SMALL, layers=3), seed=1, optimizer_state=of(model).state_dict())
    assert grown.optimizer_state is not None and grown.optimizer_state["state"] == {}
    of(grown.model).load_state_dict(grown.optimizer_state)


def test_soap_knows_of_an_inserted_layer_what_is_typical() -> None:
    """Matrices have no moments and plain bases, vectors the mean of all second moments; all count on."""
    model = build(SMALL, dtype=torch.float64, seed=0)
    state = trained(model, molecules(torch.float64), of=soap).state_dict()
    grown = grow(model, to(SMALL, layers=3), seed=1, optimizer_state=state)
    origins = model.growth(to(SMALL, layers=3)).origins
    assert grown.optimizer_state is not None
    vectors = [s["exp_avg_sq"].flatten() for s in state["state"].values() if "basis_left" not in s]
    inserted = [name for name, origin in origins.items() if origin.name is None]
    assert len(inserted) > 10
    for i, (name, p) in enumerate(grown.model.named_parameters()):
        held = grown.optimizer_state["state"][i]
        assert held["step"] == 3
        if name in inserted:
            assert not held["exp_avg"].any()
            if is_matrix(tuple(p.shape)):
                one = torch.eye(p.shape[-1], dtype=p.dtype)
                assert not held["exp_avg_sq"].any() and not held["covariance_left"].any()
                torch.testing.assert_close(held["basis_right"], one.expand_as(held["basis_right"]))
            else:
                mean = torch.cat(vectors).mean()
                torch.testing.assert_close(held["exp_avg_sq"], mean.expand_as(held["exp_avg_sq"]))


@pytest.mark.parametrize("block", [64, 8])
@pytest.mark.parametrize("step", STEPS)
def test_soap_goes_on_after_growth(step: str, block: int) -> None:
    """With blocks that hold every matrix, and with some that growth cuts elsewhere: the function stays, the
    state is one that SOAP could have, and training goes on over several changes of the bases."""
    batch, model = molecules(torch.float64), build(SMALL, dtype=torch.float64, seed=0)
    state = trained(
        model, batch, steps=8, of=lambda m: Soap(m.parameters(), lr=1e-3, every=3, block=block)
    ).state_dict()
    before = copy.deepcopy(state)
    grown = grow(model, to(SMALL, **STEPS[step]), seed=1, optimizer_state=state)
    assert_same_function(model, grown.model, batch)
    torch.testing.assert_close(state, before, rtol=0, atol=0)
    assert grown.optimizer_state is not None
    after = Soap(grown.model.parameters(), lr=1e-3, every=3, block=block)
    after.load_state_dict(copy.deepcopy(grown.optimizer_state))
    assert len(after.state) == len(list(grown.model.parameters()))
    for p, held in after.state.items():
        assert held["step"] == 8
        for side in ("left", "right") if is_matrix(tuple(p.shape)) else ():
            basis, covariance = held[f"basis_{side}"], held[f"covariance_{side}"]
            one = torch.eye(basis.shape[-1], dtype=basis.dtype).expand_as(basis)
            torch.testing.assert_close(basis.mT @ basis, one)
            smallest, largest = torch.linalg.eigvalsh(covariance).aminmax()
            assert smallest >= -1e-12 * largest
        assert (held["exp_avg_sq"] >= 0).all()
    seen = []
    for _ in range(8):
        after.zero_grad()
        loss = loss_of(grown.model, batch)
        loss.backward()
        after.step()
        seen.append(loss.item())
    assert seen[-1] < min(seen[:3]) and all(np.isfinite(seen))


# ---------------------------------------------------------------------------------------------------- on disk


def test_a_grown_potential_is_the_same_when_loaded(tmp_path: Path) -> None:
    batch = molecules(torch.float64)
    model = build(SMALL, dtype=torch.float64, seed=0)
    grown = grow(model, to(SMALL, **STEPS["all"]), seed=1)
    save_potential(tmp_path, Potential(grown.model, grown.config, dict.fromkeys(SPECIES, 0.0), 8.0, {}))
    loaded = load_potential(tmp_path)
    assert loaded.config == grown.config
    assert torch.equal(predict(loaded.model, batch).forces, predict(grown.model, batch).forces)
    again = grow(loaded.model, to(SMALL, **{**STEPS["all"], "channels": 24, "n_radial": 14}), seed=2)
    assert all(p.requires_grad for p in again.model.parameters())
    assert_same_function(model, again.model, batch)


def test_settings_remember_the_birth() -> None:
    assert dump(GeatConfig())["born"] is None
    grown = to(SMALL, channels=16, born=Born(channels=8, edge_hidden=7, n_radial=(6,)))
    assert dump(grown)["born"] == {"channels": 8, "edge_hidden": 7, "n_radial": [6]}
    assert load(GeatConfig, dump(grown), source="dump") == grown
    assert grown.resized(16, 1.0).born is None


@pytest.mark.parametrize(
    ("channels", "edge_hidden", "n_radial"), [(9, 7, [6]), (8, 8, [6]), (8, 7, [7]), (8, 7, [6, 5])]
)
def test_a_birth_larger_than_the_model_is_refused(
    channels: int, edge_hidden: int, n_radial: list[int]
) -> None:
    with pytest.raises(ValueError, match="exceeds channels=8, edge_hidden=7 or n_radial=6"):
        to(SMALL, born={"channels": channels, "edge_hidden": edge_hidden, "n_radial": n_radial})


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 6}, "channels: got 6, wanted at least 8"),
        ({"lmax": 0}, "lmax: got 0, wanted at least 1"),
        ({"layers": 1}, "layers: got 1, wanted at least 2"),
        ({"n_radial": 5}, "n_radial: got 5, wanted at least 6"),
        ({"coupling": 0.25}, "coupling: got 2 coupling_channels, wanted at least 4"),
        ({"node_hidden": 1.0}, "node_hidden: got 8 node_width, wanted at least 12"),
        (
            {"channels": 9, "heads": 3},
            "heads: got 3 of 3 channels, .* wanted at least 4 channels a head, or 4 heads",
        ),
        ({"cutoff": 5.0}, "cutoff: got 5.0, wanted 4.0"),
        ({"soft_norm": 1.0}, "soft_norm: got 1.0, wanted 4.0"),
        (
            {"channels": 16, "born": {"channels": 4, "edge_hidden": 7, "n_radial": [6]}},
            "born: got .* wanted null",
        ),
    ],
)
def test_what_is_no_growth_is_refused_by_name(changes: Mapping[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grow(build(SMALL, dtype=torch.float32, seed=0), to(SMALL, **changes), seed=0)


def test_another_kind_is_refused() -> None:
    other = kind_class("models", "nequip")(cutoff=4.0)
    with pytest.raises(ValueError, match="kind: got 'nequip', wanted 'geat'"):
        grow(build(SMALL, dtype=torch.float32, seed=0), other, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["nequip", "allegro", "transformer"])
def test_families_that_do_not_grow_say_so(kind: str) -> None:
    config = kind_class("models", kind)(cutoff=4.0).resized(8, 1.0)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=f"{kind.capitalize()} does not grow.* geat"):
        grow(build(config, dtype=torch.float32, seed=0), config, seed=0)
    with pytest.raises(ValueError, match="do not say which widths are equivariant"):
        expanded(config, 2.0, eta=0.5)


def test_state_of_another_model_is_refused() -> None:
    model, large = build(SMALL, dtype=torch.float32, seed=0), to(SMALL, channels=16)
    other = build(large, dtype=torch.float32, seed=0)
    optimizer = trained(other, molecules(torch.float32), steps=1)
    for state in (optimizer, trained(other, molecules(torch.float32), steps=1, of=soap)):
        with pytest.raises(ValueError, match="of another model"):
            grow(model, large, seed=0, optimizer_state=state.state_dict())
    with pytest.raises(ValueError, match="of another model.* represent"):
        grow(model, large, seed=0, average=[p.detach() for p in other.parameters()])
    two = torch.optim.AdamW([{"params": [p]} for p in model.parameters()])
    with pytest.raises(ValueError, match="wanted one group"):
        grow(model, large, seed=0, optimizer_state=two.state_dict())


# -------------------------------------------------------------------------------------------------- expansion


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_selective_expansion_widens_equivariant_maps_fully_and_scalar_ones_by_eta(eta: float) -> None:
    config = GeatConfig()
    wide = expanded(config, 2.0, eta=eta)
    assert (wide.channels, wide.coupling_channels, wide.key_width) == (80, 40, 8)
    assert (wide.edge_hidden, wide.invariants, wide.node_width) == tuple(
        round(n * (1 + eta)) for n in (48, 12, 80)
    )
    assert (wide.lmax, wide.layers, wide.heads, wide.n_radial) == (2, 2, 4, 32)
    model = build(config, dtype=torch.float64, seed=0)
    assert_same_function(model, grow(model, wide, seed=1).model, molecules(torch.float64, cutoff=5.0))


def test_expansion_keeps_every_width_it_does_not_widen_and_the_birth() -> None:
    for factor in (1.0, 1.05, 1.37, 3.0):
        for eta in (0.0, 0.5, 1.0):
            wide = expanded(
                GeatConfig(channels=12, heads=2, born=Born(channels=8, edge_hidden=48, n_radial=(32,))),
                factor,
                eta=eta,
            )
            assert wide.born == Born(channels=8, edge_hidden=48, n_radial=(32,))
            assert wide.channels % wide.heads == 0 and wide.node_width == max(
                24, round(24 * (1 + eta * (factor - 1)))
            )


@pytest.mark.parametrize(("factor", "eta"), [(0.5, 0.5), (2.0, 1.5), (2.0, -0.1)])
def test_expansion_that_shrinks_is_refused(factor: float, eta: float) -> None:
    with pytest.raises(ValueError, match="factor: got|eta: got"):
        expanded(GeatConfig(), factor, eta=eta)
