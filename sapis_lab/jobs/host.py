"""What a process is given by this host and by the program it belongs to: cores, environment, commit."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from sapis_lab.config import home

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Memory is kept instead of being returned and faulted in again at every step: 52.9 -> 44.3 ms a step of
    # GEAT on 16 molecules.
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "100000000",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # reproducible sums on GPUs
}


def worker_environment() -> dict[str, str]:
    """What is set for points: one thread, and the commit of the program, for points to note in their records:
    SAPIS_COMMIT and SAPIS_DIRTY (0 or 1), empty outside of git."""
    commit, dirty = current_commit()
    return {
        **WORKER_ENVIRONMENT,
        "SAPIS_COMMIT": commit or "",
        "SAPIS_DIRTY": "" if dirty is None else str(int(dirty)),
    }


def current_commit() -> tuple[str | None, bool | None]:
    """The commit of the project folder and whether files differ from it; None outside of git."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=home(), capture_output=True, text=True, timeout=20, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    # Results are being written while this is asked: they are no change of the program.
    changes = git("status", "--porcelain", "--", ".", ":(exclude)results") if commit else None
    return commit, None if changes is None else bool(changes)


def n_cores() -> int:
    """Processor cores that this process may use: its affinity, and the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return max(1, min(allowed, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no container, or "max": no quota
        return allowed
