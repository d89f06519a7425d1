"""What is measured on: the device, its driver, and the versions of what computes there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from sapis_lab.bench.device.part import Asked
from sapis_lab.bench.worker import device_name
from sapis_lab.packages import versions


def measure(asked: Asked) -> Iterator[dict[str, Any]]:
    """One mapping, whose `cuda` says whether there is a device; `device` is the one to use, `wrong` why not
    that which was asked for."""
    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    about: dict[str, Any] = {"n_devices": n, "torch": torch.__version__, "torch_cuda": torch.version.cuda}
    about["wrong"] = None
    if asked.device not in ("auto", "cpu"):
        index = int(asked.device.partition(":")[2] or 0)
        if index >= n:
            about["wrong"] = f"torch {torch.__version__} sees {n} CUDA devices"
    elif asked.device == "auto":
        index = 0
    about["cuda"] = bool(n) and asked.device != "cpu" and not about["wrong"]
    place = torch.device("cuda", index) if about["cuda"] else torch.device("cpu")
    about |= {"device": str(place), "device_name": device_name(place), "driver": driver()}
    about["triton"] = versions(["triton"]).get("triton")
    if about["cuda"]:
        properties = torch.cuda.get_device_properties(place)
        about |= {
            "capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "n_multiprocessors": properties.multi_processor_count,
            "cudnn": torch.backends.cudnn.version(),
        }
    yield about


def driver() -> str | None:
    """The version of NVIDIA's driver; None where there is none to ask."""
    with suppress(OSError, subprocess.SubprocessError):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
        if lines := done.stdout.split():
            return lines[0]
    with suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"\b\d{3}\.\d+(\.\d+)?\b", text):
            return found[0]
    return None
