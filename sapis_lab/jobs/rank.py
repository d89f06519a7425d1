"""Run one job, or one rank of it, by a command.

    python -m sapis_lab.jobs.rank FOLDER --target MODULE:FUNCTION --arguments JSON
    srun --ntasks 4 python -m sapis_lab.jobs.rank FOLDER --target ... --arguments ... --n-ranks 4

Output, lock and failure are in FOLDER as for every job (`launcher`); exit status: 0 done, 1 failed, 74 failed
where the reason could not be written, 75 stopped by SIGTERM, SIGINT, SIGUSR1 or SIGUSR2 and ready to go on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sapis_lab.jobs.launcher import run_child
from sapis_lab.jobs.processes import die_with
from sapis_lab.records import FAILURE
from sapis_lab.text import never_fails


def main() -> int:
    """Run what the command line says; the exit status."""
    never_fails(sys.stdout, sys.stderr)
    parser = argparse.ArgumentParser(prog="rank", description="Run one job, or one rank of it.")
    parser.add_argument("folder", type=Path, help="folder of the job")
    parser.add_argument("--target", required=True, help="the function that does it, module:function")
    parser.add_argument("--arguments", type=json.loads, default={}, help="of the function, as JSON")
    parser.add_argument("--n-ranks", type=int, default=1, help="processes that work on it together")
    given = parser.parse_args()
    return run_rank(given.folder.absolute(), given.target, given.arguments, n_ranks=given.n_ranks)


def rank_here() -> int | None:
    """Of this process, under torchrun or srun; None elsewhere."""
    rank = next((os.environ[name] for name in ("RANK", "SLURM_PROCID") if name in os.environ), None)
    return None if rank is None else int(rank)


def run_rank(folder: Path, target: str, arguments: Mapping[str, Any], *, n_ranks: int = 1) -> int:
    """Run the rank that the environment says, the only one with `n_ranks` 1; its exit status."""
    rank = (rank_here() or 0) if n_ranks > 1 else 0
    if rank == 0:
        (folder / FAILURE).unlink(missing_ok=True)
    if "RANK" in os.environ:  # of torchrun, when it is killed
        die_with(os.getppid())
    return run_child(folder, target, dict(arguments), rank=rank, n_ranks=n_ranks)


if __name__ == "__main__":
    sys.exit(main())
