"""The supervisor (supervisord) and its services: start, update, stop, look."""

import fcntl
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from product_classifier.core.errors import RuntimeServiceError
from product_classifier.core.files import write_bytes_atomic, write_text_atomic
from product_classifier.runtime import unix_rpc
from product_classifier.runtime.launch import end_processes
from product_classifier.runtime.layout import STATE_VARIABLE, Layout
from product_classifier.runtime.services import AIRFLOW_SCHEDULER, Service

STOP_TIMEOUT_SECONDS = 60  # requests in flight get so long at most; what is left then is ended

_DAEMON = """\
[unix_http_server]
file={socket}
chmod=0700

[supervisord]
logfile=supervisord.log
logfile_maxbytes=5MB
logfile_backups=1
pidfile=supervisord.pid
directory={state}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
_PROGRAM = """
[program:{name}]
command={command}
directory={directory}
autostart=false
autorestart=true
startsecs=3
startretries=3
stopasgroup=true
killasgroup=true
stopwaitsecs={stop_seconds}
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""


@dataclass(frozen=True)
class ServiceState:
    """How the supervisor sees a service."""

    name: str
    state: str  # RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL ...
    pid: int
    started: float  # seconds since the epoch

    @property
    def alive(self) -> bool:
        """Whether a process of it runs."""
        return self.state in ("RUNNING", "STARTING")


def _escape(value: object) -> str:
    return str(value).replace("%", "%%")


def render_daemon(layout: Layout) -> str:
    """Renders the part of the configuration that is about the supervisor itself."""
    return _DAEMON.format(socket=_escape(layout.socket), state=_escape(layout.state))


def render_program(layout: Layout, service: Service) -> str:
    """Renders a service's part of the configuration.

    `%` is doubled, as its format expands it; log files are expanded twice there, so they are
    relative: the supervisor works in the state's folder.
    """
    launcher = [sys.executable, "-m", "product_classifier.runtime.launch"]
    specification = str(layout.services / f"{service.name}.json")
    return _PROGRAM.format(
        name=service.name,
        command=_escape(shlex.join([*launcher, specification, service.fingerprint()])),
        directory=_escape(layout.state),
        stop_seconds=service.stop_seconds,
        log=f"logs/{service.name}.log",
    )


def _family(pid: int) -> list[psutil.Process]:
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.Error:
        return []


class Supervisor:
    """Talks to the supervisor of one checkout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls the supervisor; OSError where it does not run."""
        return unix_rpc.call(self.layout.socket, method, *arguments)

    def answers(self) -> bool:
        """Tells whether the supervisor runs and can be reached."""
        try:
            return bool(self.call("getPID"))
        except (OSError, xmlrpc.client.Error):
            return False

    def states(self) -> dict[str, ServiceState]:
        """Lists the services by name; empty where no supervisor runs."""
        try:
            found = self.call("getAllProcessInfo")
        except (OSError, xmlrpc.client.Error):
            return {}
        return {
            item["name"]: ServiceState(
                item["name"], item["statename"], item["pid"], float(item["start"])
            )
            for item in found
        }

    def running(self) -> set[str]:
        """Names the services that have a process now."""
        return {name for name, state in self.states().items() if state.alive}

    def processes(self) -> list[psutil.Process]:
        """Lists the living processes of the services, with their children and what those left behind."""
        # Some overwrite the environment that holds our mark when they give themselves a title.
        found = {process.pid: process for process in self.marked_processes()}
        for state in self.states().values():
            if state.pid:
                found |= {process.pid: process for process in _family(state.pid)}
        return list(found.values())

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        # A start and a task that deploys may meet: the configuration is written by one at a time.
        with (self.layout.state / "supervisor.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def apply(
        self, services: list[Service], keep: Callable[[], Collection[str]] = tuple
    ) -> list[str]:
        """Makes the supervisor run exactly these services; starts the supervisor if need be.

        Args:
            services: What is to run.
            keep: Names of others that stay as they are, asked for when nobody else changes anything.

        Returns:
            Names of the services that were started or restarted; what runs unchanged is left alone.
        """
        with self._exclusively():
            names = {service.name for service in services} | set(keep())
            for path in self.layout.services.glob("*.conf"):
                if path.stem not in names:
                    path.unlink()
            self._write(services)
            if self.answers():
                self._update()
            else:
                self._start_daemon()
            return self._start_programs(self.states().values())

    def add(self, service: Service) -> bool:
        """Makes the running supervisor run this service too; every other one is left as it is.

        Returns:
            Whether it was started or restarted.

        Raises:
            RuntimeServiceError: no supervisor runs, or one that an older version has started.
        """
        with self._exclusively():
            if not self.answers():
                raise RuntimeServiceError("No supervisor runs: it was stopped.")
            if set(self.states()) - {path.stem for path in self.layout.services.glob("*.conf")}:
                raise RuntimeServiceError("An older version started the services: `make start`.")
            self._write([service])
            self._update()
            return bool(self._start_programs([self.states()[service.name]]))

    def _write(self, services: list[Service]) -> None:
        folder = self.layout.services
        for service in services:
            content = json.dumps(service.specification(), indent=2).encode()
            write_bytes_atomic(folder / f"{service.name}.json", content, mode=0o600)
            program = render_program(self.layout, service)
            write_text_atomic(folder / f"{service.name}.conf", program, mode=0o600)
        parts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.conf"))]
        configuration = render_daemon(self.layout) + "".join(parts)
        write_text_atomic(self.layout.state / "supervisord.conf", configuration, mode=0o600)

    def _start_programs(self, states: Iterable[ServiceState]) -> list[str]:
        started = []
        for state in states:
            if not state.alive:
                self.call("startProcess", state.name, False)
                started.append(state.name)
        return started

    def _update(self) -> None:
        [[added, changed, removed]] = self.call("reloadConfig")
        for name in (*changed, *removed):
            self.call("stopProcessGroup", name)
            self.call("removeProcessGroup", name)
        for name in (*added, *changed):
            self.call("addProcessGroup", name)

    def _start_daemon(self) -> None:
        self.end_leftovers()
        self.layout.prepare()
        self.layout.socket.unlink(missing_ok=True)
        configuration = str(self.layout.state / "supervisord.conf")
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", configuration]
        result = subprocess.run(  # noqa: S603
            command, cwd=self.layout.state, capture_output=True, text=True, check=False
        )
        deadline = time.monotonic() + 20
        while not self.answers():
            if result.returncode or time.monotonic() > deadline:
                said = (result.stderr or result.stdout).strip() or "nothing"
                raise RuntimeServiceError(
                    f"The supervisor did not start; it said: {said}. "
                    f"Its log: {self.layout.state}/supervisord.log"
                )
            time.sleep(0.1)

    def stop(self) -> bool:
        """Ends every service and the supervisor; leaves no process behind.

        Returns:
            Whether anything ran.
        """
        with self._exclusively():
            ran = self.answers()
            if ran:
                self._stop_daemon()
            ran = self.end_leftovers() or ran
            shutil.rmtree(self.layout.socket.parent, ignore_errors=True)
            return ran

    def _stop_daemon(self) -> None:
        states = self.states()
        # The scheduler first, while the API still takes what its tasks report on their way out.
        for name in sorted(states, key=lambda name: name != AIRFLOW_SCHEDULER):
            if states[name].alive:
                self.call("stopProcess", name, name == AIRFLOW_SCHEDULER)
        daemon = psutil.Process(self.call("getPID"))
        self.call("shutdown")
        psutil.wait_procs([daemon], timeout=STOP_TIMEOUT_SECONDS)

    def end_leftovers(self) -> bool:
        """Ends what still carries our mark, as after a crash; True where there was something."""
        leftovers = self.marked_processes()
        for process in leftovers:
            if process.is_running() and "supervisor.supervisord" in process.cmdline():
                process.send_signal(signal.SIGTERM)
        end_processes(leftovers)
        return bool(leftovers)

    def marked_processes(self) -> list[psutil.Process]:
        """Lists the living processes that this checkout's embedded run started."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(STATE_VARIABLE) == str(self.layout.state):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return [process for process in found if process.pid != psutil.Process().pid]
