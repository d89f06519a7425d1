"""A runs table as a small study would leave it, from known laws: for tests only."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sapis_lab.analysis.laws import LAWS

MODELS = {
    # model: (family, symmetry, lmax, law, true parameters)
    "geat-l1": ("geat", "O(3)", 1, "n+d", {"A": 2.2, "B": 1.9, "alpha": 0.42, "beta": 0.62}),
    "geat-l2": ("geat", "O(3)", 2, "n+d", {"A": 2.4, "B": 1.6, "alpha": 0.46, "beta": 0.66}),
    "nequip-l2": ("nequip", "O(3)", 2, "n+d", {"A": 2.1, "B": 2.0, "alpha": 0.41, "beta": 0.64}),
    "transformer": ("transformer", "none", None, "n+d", {"A": 1.8, "B": 2.6, "alpha": 0.33, "beta": 0.52}),
}


def runs_table(
    *,
    models: tuple[str, ...] = tuple(MODELS),
    n_params: tuple[float, ...] = (3e3, 1e4, 3e4, 1e5),
    n_frames: tuple[int, ...] = (50, 100, 200, 400),
    seeds: tuple[int, ...] = (0,),
    noise: float = 0.03,
    epochs: float | None = None,
    failed: tuple[str, ...] = (),
    generator: np.random.Generator | None = None,
) -> pd.DataFrame:
    """One row a point; `noise` is the standard deviation of ln L, `failed` names the ids that crashed.

    2,000 steps each, or a fixed number of `epochs`, at which cost grows with the data.
    """
    generator = generator or np.random.default_rng(0)
    rows = []
    for model in models:
        for target in n_params:
            for frames in n_frames:
                rows += [_row(model, target, frames, seed, noise, epochs, generator) for seed in seeds]
    table = pd.DataFrame(rows)
    table["lmax"] = table["lmax"].astype("Int64")
    crashed = table["id"].isin(failed)
    metrics = [c for c in table if c.startswith(("val_", "test_"))]
    table.loc[crashed, metrics] = np.nan
    table.loc[crashed, "status"] = "failed"
    table["failure"] = np.where(crashed, "loss became NaN at step 120 <learning_rate too high>", None)
    return table


def _row(
    model: str,
    target: float,
    frames: int,
    seed: int,
    noise: float,
    epochs: float | None,
    generator: np.random.Generator,
) -> dict:
    family, symmetry, lmax, law, params = MODELS[model]
    count = int(target * generator.uniform(0.94, 1.06))
    loss = float(LAWS[law].predict(params, count, frames)) * np.exp(noise * generator.standard_normal())
    batch = 8
    steps = 2000 if epochs is None else int(epochs * frames / batch)
    per_step = {"geat": 9e3, "nequip": 2.5e4, "transformer": 4e3}[family] * count * (1 + (lmax or 0))
    seconds = 20 + per_step * steps / 8e9
    errors = {
        "force_rmse": loss,
        "force_mae": 0.7 * loss,
        "energy_mae": 1.4 * loss,
        "energy_mae_per_atom": 1.4 * loss / 9,
    }
    errors["energy_rmse"] = 1.8 * loss
    return {
        "id": f"{model}-n{target:.1e}-d{frames}-s{seed}".replace("e+0", "e"),
        "status": "done",
        "model": model,
        "family": family,
        "symmetry": symmetry,
        "lmax": lmax,
        "seed": seed,
        "n_params_target": target,
        "n_params": count,
        "n_params_equivariant": int(0.6 * count),
        "n_params_scalar": count - int(0.6 * count),
        "n_frames": frames,
        "steps": steps,
        "epochs": steps * batch / frames,
        "samples": steps * batch,
        "batch_size": batch,
        "learning_rate": 5e-3,
        "flops_per_step": per_step,
        "flops_elementwise_per_step": 0.2 * per_step,
        "flops_train": per_step * steps,
        "flops_inference_per_frame": per_step / (3 * batch),
        "seconds_train": seconds,
        "cpu_seconds_train": seconds * 1.01,
        "seconds_total": seconds + 5,
        "device": "cpu",
    } | {
        f"{split}_{name}": value * factor
        for split, factor in (("val", 1.0), ("test", 1.03))
        for name, value in errors.items()
    }
