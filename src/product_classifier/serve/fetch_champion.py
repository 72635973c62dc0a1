"""Fetches the newest champion from the DVC remote: `python -m product_classifier.serve.fetch_champion FOLDER`.

The remote's settings come as JSON on standard input. The folder needs no checkout; afterwards its `models/champion`
points at the verified release. Exit code 0: done; 1: the remote is away or damaged; 2: settings or extra missing.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from product_classifier.core.errors import ConfigurationError, ExitCode, ProductClassifierError
from product_classifier.core.files import write_text_atomic
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace

if TYPE_CHECKING:
    from product_classifier.versioning.index import StateEntry, StateIndex


def fetch_champion(root: Path, settings: Settings) -> str:
    """Fetches, verifies and publishes the newest recorded champion below `root`; gives its release id.

    Raises:
        ConfigurationError: DVC is not installed, or the remote's settings are not usable.
        VersioningError: the remote is away or lacks something.
    """
    try:
        from product_classifier.versioning import champion, index, lockfile, materialise, remote
        from product_classifier.versioning.deadline import within
        from product_classifier.versioning.repository import Repository
        from product_classifier.versioning.serial import serialised
    except ImportError as error:
        raise ConfigurationError(
            f"BUNDLE_SOURCE=dvc needs the extra 'versioning': {error.name} is not installed."
        ) from error
    if not settings.remote_url(""):
        raise ConfigurationError(
            "BUNDLE_SOURCE=dvc needs the address of the DVC remote: set DVC_REMOTE_URL, or "
            "DAGSHUB_REPOSITORY and DAGSHUB_TOKEN."
        )
    workspace = Workspace(root)
    _prepare(workspace)
    with (
        serialised(workspace, settings.dvc_lock_wait_seconds),
        Repository(workspace, settings) as repository,
    ):

        def _fetch() -> str:
            server = remote.Remote(repository)
            server.check_reachable()
            states = index.StateIndex(server)
            entry = _newest_with_champion(states)
            lock = lockfile.parse_lock(states.load(entry).lock, entry.entry_id)
            materialiser = materialise.Materialiser(remote.Objects(repository), server)
            source = champion.find_champion(materialiser, states, lock)
            if source is None:
                raise ConfigurationError(
                    f"State {entry.entry_id} on the DVC remote has no champion."
                )
            return champion.publish_champion(materialiser, source, entry.entry_id)

        return within(settings.dvc_timeout_seconds, "Fetching from the DVC remote", _fetch)


def _newest_with_champion(states: "StateIndex") -> "StateEntry":
    for entry in states.newest_first():
        if entry.champion and not entry.missing:
            return entry
    raise ConfigurationError(
        "The DVC remote holds no champion yet. Run the pipeline where it is recorded."
    )


def _prepare(workspace: Workspace) -> None:
    # The least that DVC opens; without git, as everywhere here.
    for path, content in (
        (workspace.root / ".dvc" / "config", "[core]\n    no_scm = true\n    analytics = false\n"),
        (workspace.root / "dvc.yaml", "stages: {}\n"),
    ):
        if not path.exists():
            write_text_atomic(path, content)


def main() -> int:
    """Runs the fetch for the calling service; what went wrong is the last thing on standard error."""
    try:
        settings = Settings(_env_file=None, **json.load(sys.stdin))
        fetch_champion(Path(sys.argv[1]).resolve(), settings)
    except ProductClassifierError as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(error.exit_code)  # a thread that hangs on the remote would keep an exit waiting
    return int(ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main())
