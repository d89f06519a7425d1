"""Train one point by hand, with one or several processes.

    python -m sapis_lab.sweep.run_ranks FOLDER --cache CACHE --devices 2           # starts both ranks on this
    machine torchrun --nproc-per-node 2 -m sapis_lab.sweep.run_ranks FOLDER --cache CACHE --devices 2
    srun --ntasks 4 --kill-on-bad-exit=1 python -m sapis_lab.sweep.run_ranks FOLDER --cache CACHE --devices 4

Under torchrun and srun it is one rank, and one is started for every device. FOLDER is that of a point, with
its config.yaml; output goes to log.txt there (log.rank1.txt, ... of further ranks). Exit status: 0 done, 1
failed, with the reason in failure.txt, 74 failed where that could not be written, 75 stopped by SIGTERM,
SIGINT, SIGUSR1 or SIGUSR2 and ready to go on; torchrun turns all but 0 into 1.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from sapis_lab.jobs.launcher import STOP_SIGNALS, fork_ranks
from sapis_lab.jobs.rank import rank_here, run_rank
from sapis_lab.records import FAILURE
from sapis_lab.sweep.engine import TARGET
from sapis_lab.text import never_fails


def main(arguments: list[str] | None = None) -> int:
    """Run one rank, or start all; returns the exit status."""
    never_fails(sys.stdout, sys.stderr)
    parser = argparse.ArgumentParser(
        prog="run_ranks", description="Train one point, as one of its ranks or with all of them."
    )
    parser.add_argument("folder", type=Path, help="folder of the point, with its config.yaml")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the frame stores")
    parser.add_argument("--devices", type=int, default=1, help="processes that train the point together")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:K")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU, for every process")
    parser.add_argument("--step", default="auto", help="auto, eager, compiled or graph")
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=20.0, help="wall time between checkpoints, s"
    )
    given = vars(parser.parse_args(arguments))
    folder: Path = given.pop("folder").absolute()
    if not (folder / "config.yaml").exists():
        parser.error(f"{folder / 'config.yaml'}: no such file; wanted the folder of a point")
    given["cache"] = given["cache"].absolute()
    n = given["devices"]
    if n > 1 and rank_here() is None:
        return _all_ranks({"folder": folder, "target": TARGET, "arguments": given, "ranks": n})
    return run_rank(folder, TARGET, given, n_ranks=n)


def _all_ranks(request: dict[str, Any]) -> int:
    """Fork the ranks, hand signals on to them, and wait for their end; the status of the first that
    failed."""
    import sapis_lab.training.run  # noqa: F401  once, before the ranks are forked

    (request["folder"] / FAILURE).unlink(missing_ok=True)
    group = fork_ranks(request)

    def hand_on(number: int, frame: FrameType | None) -> None:
        group.signal(number)

    for number in STOP_SIGNALS:
        signal.signal(number, hand_on)
    status = group.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
