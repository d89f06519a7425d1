"""A PostgreSQL server of its own for a test, from the programs that the system has."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, if there is one."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


@dataclass
class Server:
    """A server that runs, in a folder of its own."""

    folder: Path
    port: int
    password: str
    user: str | None
    """The account of the programs; ours when not given."""

    @property
    def url(self) -> str:
        """Of its database, with the password."""
        return f"postgresql+psycopg://tuner:{self.password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._control("-w", "-l", self.folder / "server.log", "-o", options, "start")

    def stop(self, how: str = "immediate") -> None:
        """`immediate` ends all connections at once, as a crash does; `fast` tells them."""
        self._control("-m", how, "stop")

    def _control(self, *arguments: str | Path) -> None:
        self.call("pg_ctl", "-D", self.folder / "data", *arguments)

    def call(self, program: str, *arguments: str | Path) -> None:
        bin_folder, user = programs(), self.user
        assert bin_folder is not None
        done = subprocess.run(
            [str(bin_folder / program), *map(str, arguments)],
            user=user,
            group=user,
            extra_groups=[] if user else None,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout


@contextmanager
def server(folder: Path, *, password: str) -> Iterator[Server]:
    """Starts a server in `folder`, and ends it."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    # The programs refuse to run as root: there they run as the account that the package has made.
    made = Server(folder, port, password, "postgres" if os.getuid() == 0 else None)
    folder.mkdir(parents=True)
    secret = folder / "secret"
    secret.write_text(password)
    if made.user:
        account = pwd.getpwnam(made.user)
        for path in (folder, secret):
            os.chown(path, account.pw_uid, account.pw_gid)
    made.call(
        "initdb",
        "-D",
        folder / "data",
        "-A",
        "scram-sha-256",
        "-U",
        "tuner",
        f"--pwfile={secret}",
        "--no-sync",
    )
    made.start()
    try:
        yield made
    finally:
        made.stop()
