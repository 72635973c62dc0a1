"""First-time set-up of DagsHub: sign in, make the repository, write what was chosen to `.env`.

The dagshub package is used here and nowhere else: each of its calls needs the network, and a pipeline that runs must
not. What it sets up is read back from the settings afterwards.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from product_classifier.core.deadline import DeadlineExceeded, within
from product_classifier.core.errors import ConfigurationError, RuntimeServiceError
from product_classifier.core.files import write_text_atomic
from product_classifier.core.settings import Settings
from product_classifier.runtime.dotenv import PRIVATE

CALL_SECONDS = 60.0


@dataclass(frozen=True)
class SignedIn:
    """A token, whose it is, and until when it is good; None: until it is revoked."""

    username: str
    token: str
    expires: str | None = None


@contextmanager
def _client(settings: Settings, token: str | None) -> Iterator[None]:
    """Opens the dagshub package on our host and token; it reads both when it is first imported.

    Raises:
        ConfigurationError: it is not installed.
        RuntimeServiceError: DagsHub can't be reached or refuses; the message holds no token.
    """
    with TemporaryDirectory() as folder:
        # Its own list of tokens may hold another account's, and a token of ours belongs into .env alone.
        os.environ |= {
            "DAGSHUB_CLIENT_HOST": settings.dagshub_url,
            "DAGSHUB_CLIENT_TOKENS_CACHE": str(Path(folder) / "tokens"),
            "DAGSHUB_QUIET": "1",
            "DAGSHUB_DISABLE_ANALYTICS": "1",
        }
        try:
            from dagshub.common import config
        except ImportError as error:
            raise ConfigurationError(
                "The package dagshub is not installed: `make setup` does it, or `pip install dagshub`."
            ) from error
        config.set_host(settings.dagshub_url)
        config.token, config.cache_location = token, str(Path(folder) / "tokens")
        try:
            yield
        except (ConfigurationError, RuntimeServiceError):
            raise
        except DeadlineExceeded as error:
            raise RuntimeServiceError(
                f"{error} Try again when {settings.dagshub_url} answers."
            ) from None
        except Exception as error:  # httpx's, OSError, RuntimeError and plain Exception all come
            message = str(error).replace(token, "***") if token else str(error)
            raise RuntimeServiceError(
                f"DagsHub at {settings.dagshub_url}: {message or type(error).__name__}. "
                "`product-classifier doctor` says more."
            ) from None


def check_token(settings: Settings, token: str) -> SignedIn:
    """Asks DagsHub whose token this is.

    Raises:
        ConfigurationError: nobody's: it is wrong, revoked or expired.
        RuntimeServiceError: DagsHub can't be reached.
    """
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError("This is no token of DagsHub: expected letters and digits alone.")

    def ask() -> str:
        from dagshub.common.api import UserAPI

        try:
            return str(UserAPI.get_user_from_token(token, host=settings.dagshub_url).username)
        except RuntimeError as error:  # its only way to say "401"
            if re.search(r"\b(401|403)\b", str(error)):
                raise ConfigurationError(
                    "DagsHub does not take this token: it is wrong, was revoked or has expired. Make one at "
                    f"{settings.dagshub_url}/user/settings/tokens."
                ) from None
            raise

    with _client(settings, token):
        return SignedIn(within(CALL_SECONDS, "Asking DagsHub whose token this is", ask), token)


def sign_in_with_browser(settings: Settings) -> SignedIn:
    """Opens DagsHub's page in a browser and waits until a person has agreed there.

    Raises:
        RuntimeServiceError: DagsHub can't be reached, or nobody agreed.
    """
    with _client(settings, None):
        from dagshub.auth.oauth import oauth_flow

        granted: Any = oauth_flow(settings.dagshub_url)
    signed_in = check_token(settings, granted.token_text)
    return SignedIn(signed_in.username, signed_in.token, f"{granted.expiry_date:%Y-%m-%d}")


def ensure_repository(settings: Settings, slug: str) -> str:
    """Makes the repository where there is none, for the user or an organisation of theirs; gives its address.

    Raises:
        ConfigurationError: no token is set, or `slug` is not owner/name.
        RuntimeServiceError: DagsHub can't be reached or refuses.
    """
    if settings.dagshub_token is None:
        raise ConfigurationError(
            "DAGSHUB_TOKEN is not set: run `product-classifier dagshub login` first."
        )
    token = settings.dagshub_token.get_secret_value()
    check_token(settings, token)
    owner, name = slug.split("/")

    def ensure() -> None:
        from dagshub.common.init import init

        # MLflow and DVC get their addresses from the settings, not from this package.
        init(repo_name=name, repo_owner=owner, host=settings.dagshub_url, mlflow=False, dvc=False)

    with _client(settings, token):
        within(CALL_SECONDS, f"Making {slug}", ensure)
    return f"{settings.dagshub_url}/{slug}"


def write_settings(path: Path, values: Mapping[str, str]) -> None:
    """Sets names in `.env`: a line that is there is replaced, all others stay as they are; mode 600."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for name, value in values.items():
        line = f"{name}={value}"
        places = [i for i, old in enumerate(lines) if re.match(rf"\s*(export\s+)?{name}\s*=", old)]
        if places:
            lines[places[-1]] = line  # the last one wins when it is read
        else:
            lines.append(line)
    write_text_atomic(path.resolve(), "\n".join(lines) + "\n", mode=PRIVATE)
