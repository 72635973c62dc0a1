"""The whole serve app on a really trained champion, with tokens of the shared-secret family."""

import shutil
from pathlib import Path
from typing import Any

from product_classifier.core.releases import point_champion, publish_release
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.web.tokens import Role, TokenSigner

SECRET = "0123456789abcdef" * 4
NOBODY = "http://127.0.0.1:9"


def serve_settings(**values: Any) -> Settings:
    """Settings that read no `.env`; auth and Airflow are away."""
    values = {
        "algorithm": "HS256",
        "secret_key": SECRET,
        "auth_url": NOBODY,
        "airflow_api_url": NOBODY,
        "inference_workers": 1,
        "predict_rate_limit": "10000/minute",
        "anonymous_rate_limit": "10000/minute",
        **values,
    }
    return Settings(_env_file=None, **values)


def bearer(subject: str = "alice", role: Role = "user") -> dict[str, str]:
    """The header of a valid token; made when a test file is read, it outlives the longest run of all tests."""
    token = TokenSigner(SECRET, lifetime_seconds=24 * 3600).issue(subject, role, "session-1")
    return {"Authorization": f"Bearer {token}"}


def champion_workspace(trained: Workspace, root: Path) -> Workspace:
    """A workspace of its own whose champion is the trained candidate."""
    root.mkdir(parents=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    workspace = Workspace(root)
    shutil.copytree(trained.candidate, workspace.candidate)
    release = publish_release(workspace, workspace.candidate)
    point_champion(workspace, release.release_id, "test")
    return workspace
