"""Where the live bundle comes from: the checkout's champion, a folder, or the DVC remote's newest champion.

What comes from elsewhere is copied below `.state/serve`, verified there, and served from there: a host that only
serves starts from its copy when the source is away.
"""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from product_classifier.core.bundle import MANIFEST, load_bundle, read_manifest
from product_classifier.core.errors import (
    ArtifactError,
    ConfigurationError,
    ProductClassifierError,
    SourceError,
)
from product_classifier.core.files import canonical_json, publish_directory
from product_classifier.core.settings import Settings, TrackingSettings
from product_classifier.core.workspace import Workspace

logger = logging.getLogger(__name__)

DVC = "dvc"
STATE_FOLDER = Path(".state") / "serve"
FETCH_TIMEOUT_SECONDS = 600.0
_SHOWN_OUTPUT = 500  # characters of what a failed fetch said last

Fingerprint = tuple[str, int, int, int]


class BundleSource(Protocol):
    """Gives the folder of the bundle to serve."""

    def look(self) -> Fingerprint | None:
        """Names what is there now, cheaply; None where there is nothing yet."""
        ...

    def fetch(self) -> Path:
        """Brings what is there now to this host, and gives its folder.

        Raises:
            ProductClassifierError: there is nothing, it is damaged, or it can't be reached.
        """
        ...


def fingerprint(folder: Path) -> Fingerprint | None:
    """Names the bundle in a folder by place and manifest file, without reading it; None where there is none."""
    try:
        target = folder.resolve(strict=True)
        status = (target / MANIFEST).stat()
    except OSError:
        return None
    return str(target), status.st_ino, status.st_mtime_ns, status.st_size


class ChampionSource:
    """The symlink `models/champion` of the checkout."""

    def __init__(self, workspace: Workspace) -> None:
        self._champion = workspace.champion

    def look(self) -> Fingerprint | None:
        """Names the release that the symlink points at."""
        return fingerprint(self._champion)

    def fetch(self) -> Path:
        """Gives the release's folder; releases never change, so nothing is copied."""
        try:
            return self._champion.resolve(strict=True)
        except OSError:
            raise ArtifactError(
                f"There is no champion at {self._champion} yet. Run the pipeline, or set BUNDLE_SOURCE."
            ) from None


class FolderSource:
    """A folder that something else fills: a mounted volume, a share."""

    def __init__(self, source: Path, copies: Path) -> None:
        self.source, self._copies = source, copies

    def look(self) -> Fingerprint | None:
        """Names the bundle in the folder; where the folder is away, the copy."""
        return fingerprint(self.source) or fingerprint(self._copies)

    def fetch(self) -> Path:
        """Copies the bundle, verifies the copy, and puts it in place of the last one."""
        try:
            manifest = read_manifest(self.source)
        except ArtifactError as error:
            return self._fall_back(error)
        if self._has(manifest.content_id):
            return self._copies
        try:
            with publish_directory(self._copies) as staging:
                for name in (*manifest.files, MANIFEST):
                    target = staging / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes((self.source / name).read_bytes())
                load_bundle(staging)
        except OSError as error:
            raise ArtifactError(
                f"The bundle at {self.source} can't be copied: {type(error).__name__}."
            ) from error
        return self._copies

    def _has(self, content_id: str) -> bool:
        try:
            return load_bundle(self._copies).manifest.content_id == content_id
        except ArtifactError:
            return False

    def _fall_back(self, error: ArtifactError) -> Path:
        try:
            load_bundle(self._copies)
        except ArtifactError:
            raise ArtifactError(f"BUNDLE_SOURCE gives no bundle. {error}") from error
        logger.warning("%s The copy of an earlier start is served.", error)
        return self._copies


class DVCSource:
    """The newest champion that is recorded on the DVC remote, as a host with nothing but settings gets it.

    The fetch is a process of its own: DVC changes the current folder, takes 100 MB, and can hang on a dead remote.
    """

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        self._settings, self._base = settings, workspace.root
        self._root = workspace.root / STATE_FOLDER / DVC
        self._champion = Workspace(self._root).champion

    def look(self) -> Fingerprint | None:
        """Gives always the same: the remote is asked at start and on request only."""
        return DVC, 0, 0, 0

    def fetch(self) -> Path:
        """Asks the remote; where it is away, the champion fetched last is served."""
        try:
            self._run_fetch()
        except ProductClassifierError as error:
            if isinstance(error, ConfigurationError) or fingerprint(self._champion) is None:
                raise
            logger.warning("%s The champion of an earlier fetch is served.", error)
        return self._champion.resolve(strict=True)

    def _run_fetch(self) -> None:
        program = [sys.executable, "-m", "product_classifier.serve.fetch_champion", str(self._root)]
        try:
            done = subprocess.run(  # noqa: S603 - our own program
                program,
                input=canonical_json(_tracking_values(self._settings, self._base)),
                capture_output=True,
                timeout=FETCH_TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise SourceError(
                f"The DVC remote gave no champion within {FETCH_TIMEOUT_SECONDS:g} s."
            ) from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-_SHOWN_OUTPUT:]
            kind = (
                ConfigurationError
                if done.returncode == ConfigurationError.exit_code
                else SourceError
            )
            raise kind(f"The champion can't be fetched from the DVC remote. {said}")


def _tracking_values(settings: Settings, base: Path) -> dict[str, object]:
    """Gives the remote's settings for the fetching process: on its standard input, where nobody else reads secrets."""
    values = {name: getattr(settings, name) for name in TrackingSettings.model_fields}
    url = settings.dvc_remote_url
    if (
        url and "://" not in url
    ):  # a folder is named from the checkout, not from where the fetch works
        values["dvc_remote_url"] = str((base / Path(url).expanduser()).resolve())
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in values.items()
    }


def bundle_source(settings: Settings, workspace: Workspace) -> BundleSource:
    """Gives the source that BUNDLE_SOURCE names: not set, `dvc`, or a folder."""
    if settings.bundle_source is None:
        return ChampionSource(workspace)
    if settings.bundle_source == DVC:
        return DVCSource(settings, workspace)
    copies = workspace.root / STATE_FOLDER / "bundle"
    return FolderSource(workspace.root / settings.bundle_source, copies)
