"""Public data onto this machine: downloads that continue after a cut, are compared with what is known of
them, and are unpacked without trust in what an archive says."""

from sapis_lab.download._fetch import Fetched, Reporter, check_space, fetch, record_of
from sapis_lab.download._http import DownloadError, Unreachable
from sapis_lab.download._transfer import Received, Wanted, download
from sapis_lab.download._unpack import Unpacked, unpack

__all__ = [
    "DownloadError",
    "Fetched",
    "Received",
    "Reporter",
    "Unpacked",
    "Unreachable",
    "Wanted",
    "check_space",
    "download",
    "fetch",
    "record_of",
    "unpack",
]
