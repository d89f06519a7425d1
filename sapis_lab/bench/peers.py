"""Speed of peer codes beside this package's models in one interleaved run (`sapis bench peers`).

Every code runs in its own environment behind its adapter and gets the same frames, the same directed edges
and the same loss. Its step is the one of `sapis bench step`: energies, forces, backward through both,
clipping, AdamW; its width is chosen to meet the number of parameters. CPU time of one thread, denormals
flushed, the allocator keeping its memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from sapis_lab.bench.adapters import Code, find_code
from sapis_lab.bench.environments import default_root, is_made
from sapis_lab.bench.inputs import INPUTS, make_input
from sapis_lab.bench.measure import Entry, Settings, run
from sapis_lab.bench.step import checked, model_config
from sapis_lab.config import ConfigError, dump, plainly

PEERS = (
    "nequip",
    "nequip-S",
    "allegro",
    "mace",
    "mace-inv",
    "painn",
    "tensornet",
    "tensornet2",
    "et",
    "dpa4",
    "orb",
    "e3nn-nequip",
)
"""What is measured when nothing is named; the adapters say what each of them is."""
OURS = "sapis-"
"""Opens the name of a model of this package where a peer has the same: `sapis-nequip`."""


def peer_code(text: str) -> Code:
    """The code of a name with options behind colons: `mace:layers=1`, `geat-l1`, `sapis-nequip:layers=2`.

    Raises:
        ConfigError: neither a peer nor a model of this package.
    """
    if text.split(":")[0] in PEERS:
        return find_code(text.replace(":", ","))
    try:
        config = model_config(text.removeprefix(OURS))
    except ConfigError as error:
        raise ConfigError(f"{error}; peers: {', '.join(PEERS)}") from None
    plain = dump(type(config).model_validate({"kind": config.kind}))
    changed = {k: v for k, v in dump(config).items() if v != plain[k] and k != "name"}
    return find_code(",".join([OURS + config.kind, *(f"{k}={json.dumps(v)}" for k, v in changed.items())]))


def run_peers(
    *,
    models: Sequence[str],
    sizes: Sequence[float],
    inputs: Sequence[str],
    settings: Settings,
    installed: bool,
    json_file: Path | None,
    console: Console,
) -> int:
    """Measure every model at every size on every input; the exit status, 1 where any of them failed.

    Args:
        models: names that `peer_code` reads.   installed: leave out, and say so, peers whose environment is
            missing.

    Raises:
        ConfigError: an unknown name, or the environment of a peer is missing.
    """
    root = (settings.root or default_root()).resolve()
    codes = {name: peer_code(name) for name in models}
    for name in inputs:
        if name not in INPUTS:
            raise ConfigError(f"--inputs: no input {name!r}; there are {', '.join(INPUTS)}")
    missing = {code.environment: None for code in codes.values() if not is_made(code.environment, root)}
    if missing and not installed:
        raise ConfigError(
            f"{root} holds no environment {', '.join(missing)}; make it with: sapis bench environments "
            f"{' '.join(missing)} --root {root}; "
            "or leave out what is missing: --installed"
        )
    for name in [n for n, code in codes.items() if code.environment in missing]:
        console.print(
            f"left out: {name}, whose environment {codes[name].environment} is not in {root}", soft_wrap=True
        )
        del codes[name]
    if not codes:
        raise ConfigError(f"nothing to measure: {root} holds no environment {', '.join(missing)}")
    reference = settings.reference or ("geat" if "geat" in codes else "")
    settings = checked(replace(settings, root=root, reference=reference), list(codes))
    with tempfile.TemporaryDirectory(prefix="sapis-bench-") as folder:
        files = {name: str(Path(folder) / f"{name}.npz") for name in inputs}
        for name, path in files.items():
            arrays = plainly(lambda name=name: make_input(name).arrays())  # type: ignore[misc]
            np.savez(path, **arrays)  # type: ignore[arg-type]
        entries = [
            Entry(
                name,
                size,
                data,
                "sapis_lab.bench.worker:PeerJob",
                {"adapter": code.adapter, "model": code.model, "n_params": size, "arrays": files[data]},
                code.environment,
            )
            for data in inputs
            for size in sizes
            for name, code in codes.items()
        ]
        return run(entries, settings, what="peers", words=INPUTS, json_file=json_file, console=console)
