"""A PostgreSQL server of its own for a test, from the programs that the system has."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, if there is one."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


@contextmanager
def server(folder: Path, *, password: str) -> Iterator[str]:
    """Starts a server in `folder`; the URL of its database, with the password."""
    bin_folder = programs()
    assert bin_folder is not None
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    # The programs refuse to run as root: there they run as the account that the package has made.
    user = "postgres" if os.getuid() == 0 else None
    folder.mkdir(parents=True)
    secret, data = folder / "secret", folder / "data"
    secret.write_text(password)
    if user:
        account = pwd.getpwnam(user)
        for path in (folder, secret):
            os.chown(path, account.pw_uid, account.pw_gid)

    def call(*command: str | Path) -> None:
        done = subprocess.run([*map(str, command)], user=user, group=user, extra_groups=[] if user else None, cwd=folder,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
        assert done.returncode == 0, done.stdout

    call(bin_folder / "initdb", "-D", data, "-A", "scram-sha-256", "-U", "tuner", f"--pwfile={secret}", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    call(bin_folder / "pg_ctl", "-D", data, "-w", "-l", folder / "server.log", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://tuner:{password}@127.0.0.1:{port}/postgres"
    finally:
        call(bin_folder / "pg_ctl", "-D", data, "-m", "immediate", "stop")
