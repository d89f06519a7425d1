"""A tuning of points that only pretend to train, in a process of its own.

python tune_process.py tune|worker STUDY WORKERS [KEY=VALUE ...]      # exit status as of `sapis tune`
"""

from __future__ import annotations

import os
import sys

from rich.console import Console

from sapis_lab.sweep.tuner.request import TuneRequest
from sapis_lab.sweep.tuner.run_tune import run_tune
from sapis_lab.sweep.tuner.run_worker import run_worker


def main(what: str, name: str, workers: str, *settings: str) -> int:
    if seconds := os.environ.get("SAPIS_TEST_PATIENCE"):
        from sapis_lab.sweep.tuner import patient

        patient.SECONDS = float(seconds)
    retry = "--retry-failed" in settings
    request = TuneRequest(
        name,
        tuple(s for s in settings if s != "--retry-failed"),
        workers=int(workers),
        retry_failed=retry,
        target="tuned_points:run_point",
        preload=("tuned_points",),
    )
    return {"tune": run_tune, "worker": run_worker}[what](request, Console(width=200))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
