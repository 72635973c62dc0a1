"""The one door to DVC: open, status, commit, push. Nothing else here imports `dvc`.

DVC is used through its Python API: half the start-up time of its command line, and errors that can
be told apart. It works without git (`core.no_scm`), so neither the state of `.git` nor who owns it
can stop a pipeline.
"""

import getpass
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo

from product_classifier.core.errors import ConfigurationError, VersioningError
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.versioning.lockfile import LOCK_FILE, LockFile, parse_lock
from product_classifier.versioning.serial import retry_while

logger = logging.getLogger(__name__)

T = TypeVar("T")

REMOTE = "origin"
CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 60  # a busy S3 service takes its time after the last byte of a large object
_USER_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


class Repository:
    """DVC on one workspace, with the remote that the settings name. A context manager."""

    def __init__(self, workspace: Workspace, settings: Settings) -> None:
        """Opens DVC; the remote is not asked for anything yet.

        Raises:
            ConfigurationError: there is no DVC here, or its files or the remote's settings are not
                usable.
        """
        self.workspace, self.settings = workspace, settings
        if not (workspace.root / ".dvc").is_dir():
            raise ConfigurationError(
                f"There is no folder .dvc in {workspace.root}. Run from the project's folder."
            )
        _ensure_user_name()
        _quiet_dvc()
        try:
            self.repo = Repo(str(workspace.root), config=run_time_config(workspace, settings))
        except DvcException as error:
            raise ConfigurationError(f"DVC can't open {workspace.root}: {error}") from error

    def __enter__(self) -> "Repository":
        # DVC reads a stage's name, and prints paths, relative to the current folder.
        self._previous_folder = Path.cwd()
        os.chdir(self.workspace.root)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        os.chdir(self._previous_folder)
        self.repo.close()

    def lock_file(self) -> LockFile:
        """Reads the workspace's `dvc.lock`; an empty one where nothing was recorded yet."""
        path = self.workspace.root / LOCK_FILE
        return parse_lock(path.read_bytes() if path.exists() else b"", str(path))

    def status(self, stage: str) -> list[Any]:
        """Gives DVC's own status of one stage: what differs from `dvc.lock`; empty if nothing."""
        found: dict[str, list[Any]] = self._call(lambda: self.repo.status(targets=[stage]))
        return found.get(stage, [])

    def inputs(self, stage: str) -> dict[str, Any]:
        """Hashes what a stage reads, as it is now: path → hash, and section → values of params.

        What is missing has the value None.
        """
        [loaded] = self._call(lambda: self.repo.stage.collect(stage))
        return {str(dep): self._hash(dep) for dep in loaded.deps}

    def command(self, stage: str) -> str:
        """Gives a stage's command line as dvc.yaml has it."""
        [loaded] = self._call(lambda: self.repo.stage.collect(stage))
        return str(loaded.cmd)

    @staticmethod
    def _hash(dep: Any) -> Any:
        try:
            return dep.get_hash().value if dep.exists else None
        except DvcException:
            return None

    def workspace_changes(self, stage: str) -> dict[str, str]:
        """Compares a stage's outputs with `dvc.lock`: path → deleted, modified or new."""
        [loaded] = self._call(lambda: self.repo.stage.collect(stage))
        changes: dict[str, str] = {}
        for out in loaded.outs:
            changes.update(out.workspace_status())
        return changes

    def hash_outputs(self) -> dict[str, str | None]:
        """Hashes all outputs as they lie in the workspace: path → hash, None where missing."""
        stages = self._call(lambda: self.repo.index.stages)
        return {str(out): self._hash(out) for stage in stages for out in stage.outs}

    def commit(self, stage: str) -> None:
        """Puts a stage's outputs into the cache and its hashes into `dvc.lock`.

        Raises:
            VersioningError: an output or dependency is missing; names it.
        """
        # relink would replace each output by a copy from the cache: work for nothing.
        self._call(lambda: self.repo.commit(stage, force=True, relink=False))

    def push(self, stage: str) -> int:
        """Sends a stage's outputs; gives how many objects it sent. Proves nothing: see `Remote`."""
        with self.transfer_errors("push"):
            return int(self._call(lambda: self.repo.push(targets=[stage], remote=REMOTE)))

    def object_path(self, md5: str) -> Path:
        """Gives the place of an object in the local cache."""
        return Path(self.repo.cache.local.oid_to_path(md5))

    def remote(self) -> Any:
        """Gives DVC's own object for the remote: `fs`, `path` and `odb`.

        Raises:
            ConfigurationError: no remote is configured, or its address has an unknown kind.
        """
        try:
            return self.repo.cloud.get_remote(REMOTE)
        except DvcException as error:
            raise ConfigurationError(f"The DVC remote is not usable: {error}") from error

    def _call(self, action: Callable[[], T]) -> T:
        try:
            return retry_while(LockError, action, self.settings.dvc_lock_wait_seconds)
        except DvcException as error:
            raise VersioningError(f"DVC: {_explain(error)}") from error

    @contextmanager
    def transfer_errors(self, action: str) -> Iterator[None]:
        """Turns what a storage client raises into a `VersioningError` that names the remote.

        The clients share no base class: OSError, botocore's and asyncio's errors all come through
        here.
        """
        try:
            yield
        except VersioningError as error:
            raise type(error)(f"{action} failed. {error}") from error
        except Exception as error:
            raise VersioningError(
                f"{action} failed: the DVC remote {self.address} answered "
                f"{type(error).__name__}: {error}"
            ) from error

    @property
    def address(self) -> str:
        """Names the remote: its address, and the endpoint where there is one.

        A folder inside the workspace is named relative to it: in a container the workspace lies
        elsewhere, and it is the same remote.
        """
        remote = self.repo.config["remote"].get(REMOTE, {})
        endpoint = remote.get("endpointurl")
        url = str(remote.get("url"))
        if Path(url).is_relative_to(self.workspace.root):
            url = str(Path(url).relative_to(self.workspace.root))
        return f"{url} at {endpoint}" if endpoint else url


def _explain(error: BaseException) -> str:
    # DVC wraps causes without repeating them.
    cause = error.__cause__
    return f"{error} ({cause})" if cause and str(cause) not in str(error) else str(error)


def _quiet_dvc() -> None:
    # DVC prints its own news on stdout, between our lines of JSON.
    log = logging.getLogger("dvc")
    log.handlers.clear()
    log.setLevel(logging.WARNING)
    log.propagate = True


def _ensure_user_name() -> None:
    # DVC asks for the user's name; a container's user id need not have one.
    if any(os.environ.get(name) for name in _USER_NAMES):
        return
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


def run_time_config(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Builds what is laid over `.dvc/config`, in memory: keys are never written to a file."""
    core = {
        "no_scm": True,
        "analytics": False,
        "check_update": False,
        "remote": REMOTE,
        # In the workspace, so that a container of one task knows the hashes that an earlier one
        # computed.
        "site_cache_dir": str(workspace.root / ".dvc" / "tmp" / "site"),
    }
    url = settings.remote_url("")
    if not url:
        return {"core": core}
    if not url.startswith("s3://"):
        if "://" not in url:
            url = str((workspace.root / Path(url).expanduser()).resolve())
        return {"core": core, "remote": {REMOTE: {"url": url}}}
    # botocore would try five times, and wait for a dead address for a minute each time.
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
    options = {
        "url": url,
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "read_timeout": READ_TIMEOUT_SECONDS,
        **settings.s3_credentials(),
    }
    return {"core": core, "remote": {REMOTE: options}}
