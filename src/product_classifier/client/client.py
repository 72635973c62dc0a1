"""The client itself: one connection pool, one signed-in user, requests that wait where they are told to."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from product_classifier.client.errors import APIError, ServerUnreachable
from product_classifier.client.results import BatchAnswer, Prediction, Product, read_answer
from product_classifier.client.session import Session

MAX_BATCH = 64
DEFAULT_RETRY_SECONDS = 1.0
_LATER = frozenset({429, 503})


class Client:
    """Talks to `serve`. Use it as a context manager, or close it; not from several threads at once.

    Where the API answers 429 or 503, the request is sent again after `Retry-After`, at most
    `attempts` times and for at most `max_wait_seconds` of waiting in all; then the error is raised.
    The password is kept in memory until the client is closed, to sign in again after the refresh
    token has ended. Neither it nor a token is ever part of an address or of a text that the client
    makes.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 30.0,
        attempts: int = 4,
        max_wait_seconds: float = 60.0,
        auth_url: str | None = None,
        trust_env: bool = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Opens nothing yet.

        Args:
            base_url: Address of serve, without a user or password in it.
            timeout: Seconds that a connection, or a pause between two bytes, may take.
            attempts: How often a request is sent at most.
            max_wait_seconds: What waiting for a busy server may take for one request.
            auth_url: Address of auth for `/token/refresh`; None: serve passes it on.
            trust_env: Whether proxy settings of the environment count.
            sleep: How to wait.

        Raises:
            ValueError: the address is not http(s), or holds a user name.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError(
                "base_url must be http://host:port or https://host without a user name in it. "
                f"Received: {parts.scheme}://{parts.hostname}."
            )
        self._http = httpx.Client(base_url=base_url, timeout=timeout, trust_env=trust_env)
        self._auth_url = (auth_url or "").rstrip("/")
        self._attempts = max(1, attempts)
        self._max_wait_seconds = max_wait_seconds
        self._sleep = sleep
        self._session: Session | None = None

    def __repr__(self) -> str:
        user = self._session.username if self._session else None
        return f"Client({str(self._http.base_url)!r}, user={user!r})"

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections and forgets password and tokens."""
        self._session = None
        self._http.close()

    def login(self, username: str, password: str) -> None:
        """Signs in; later requests are this user's.

        Raises:
            APIError: refused: 401 for a wrong name or password, 429 or 503 after waiting in vain.
            ServerUnreachable: nobody answers.
        """
        session = Session(username, password)
        self._sign_in(session)
        self._session = session

    def logout(self) -> None:
        """Ends the session at the server and forgets it; where nobody is signed in, does nothing.

        Raises:
            APIError: refused.
            ServerUnreachable: nobody answers.
        """
        session, self._session = self._session, None
        if session is not None:
            answer = self._send("POST", "/logout", session=session)
            if not answer.is_success:
                raise APIError.from_response(answer)

    def predict(
        self,
        *,
        designation: str | None = None,
        description: str | None = None,
        image: bytes | Path | str | None = None,
        explain: bool = False,
        **identifiers: str,
    ) -> Prediction:
        """Asks for the type of one product.

        Args:
            designation: Title.
            description: Long text.
            image: Photo, as content or path; a title or a photo is needed.
            explain: Also ask what moved the answer (up to two seconds more).
            **identifiers: `product_identifier`, `product_id`, `imageid`: given back unchanged.

        Raises:
            APIError: refused; 422 says which field.
            ServerUnreachable: nobody answers.
        """
        product = Product(designation, description, image, **identifiers)
        fields = product.fields() | ({"explain": "true"} if explain else {})
        photo = product.image_bytes()
        # A form without a file is sent as multipart too: that is what the API reads.
        files: list[tuple[str, Any]] = [(name, (None, value)) for name, value in fields.items()]
        if photo is not None:
            files.append(("image", (_file_name(product.image), photo)))
        return Prediction.from_json(self._ask("POST", "/predict", files=files))

    def predict_batch(self, products: Sequence[Product]) -> BatchAnswer:
        """Asks for the types of up to 64 products in one request.

        Raises:
            ValueError: no product, or too many.
            APIError: the whole request was refused; one bad product does not do that.
            ServerUnreachable: nobody answers.
        """
        if not 1 <= len(products) <= MAX_BATCH:
            raise ValueError(f"Expected 1 to {MAX_BATCH} products. Received: {len(products)}.")
        entries: list[dict[str, str]] = []
        files: list[tuple[str, Any]] = []
        for position, product in enumerate(products):
            entry = product.fields()
            if (photo := product.image_bytes()) is not None:
                entry["image"] = f"{position}-{_file_name(product.image)}"
                files.append(("images", (entry["image"], photo)))
            entries.append(entry)
        files.insert(0, ("products", (None, json.dumps(entries, ensure_ascii=False))))
        return BatchAnswer.from_json(self._ask("POST", "/predict/batch", files=files))

    def health(self) -> Mapping[str, Any]:
        """Gives what `/health` says."""
        return self._ask("GET", "/health", signed=False)

    def ready(self) -> Mapping[str, Any]:
        """Gives what `/ready` says; APIError with status 503 where no model is ready."""
        return self._ask("GET", "/ready", signed=False, wait=False)

    def model_info(self) -> Mapping[str, Any]:
        """Gives lineage, metrics and labels of the model that answers."""
        return self._ask("GET", "/model/info")

    def drift_observations(self, since: datetime, until: datetime) -> str:
        """Gives what was observed of the requests between two moments, as CSV; for admins.

        Raises:
            APIError: refused; 403 says that the user is no admin.
            ServerUnreachable: nobody answers.
        """
        span = {"since": since.isoformat(), "until": until.isoformat()}
        answer = self._request("GET", "/model/drift/observations", params=span)
        if not answer.is_success:
            raise APIError.from_response(answer)
        return answer.text

    def _sign_in(self, session: Session) -> None:
        form = {"username": session.username, "password": session.password}
        answer = self._send("POST", "/token", data=form)
        session.take(self._checked(answer))

    def _renew(self, session: Session) -> None:
        if session.refresh_token:
            body = {"refresh_token": session.refresh_token}
            session.refresh_token = None  # good for one use, whatever comes of it
            # Never again, also where it was answered 503: it may have been used up, and sending it twice looks like
            # a theft to auth.
            answer = self._send("POST", f"{self._auth_url}/token/refresh", wait=False, json=body)
            if answer.is_success:
                session.take(self._checked(answer))
                return
        self._sign_in(session)

    def _ask(
        self, method: str, path: str, *, signed: bool = True, wait: bool = True, **options: Any
    ) -> Mapping[str, Any]:
        return self._checked(self._request(method, path, signed=signed, wait=wait, **options))

    def _request(
        self, method: str, path: str, *, signed: bool = True, wait: bool = True, **options: Any
    ) -> httpx.Response:
        session = self._session if signed else None
        if session is not None and not session.is_fresh:
            self._renew(session)
        answer = self._send(method, path, session=session, wait=wait, **options)
        if answer.status_code == httpx.codes.UNAUTHORIZED and session is not None:
            # The key was rotated or the session ended at the server: once, with a new token.
            self._renew(session)
            answer = self._send(method, path, session=session, wait=wait, **options)
        return answer

    def _send(
        self,
        method: str,
        path: str,
        *,
        session: Session | None = None,
        wait: bool = True,
        **options: Any,
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {session.access_token}"} if session else {}
        left = self._max_wait_seconds
        for attempt in range(1, self._attempts + 1):
            try:
                answer = self._http.request(method, path, headers=headers, **options)
            except httpx.HTTPError as error:
                raise ServerUnreachable(
                    f"{self._http.base_url} does not answer: {type(error).__name__}."
                ) from error
            if not wait or answer.status_code not in _LATER or attempt == self._attempts:
                break
            pause = APIError.from_response(answer).retry_after_seconds
            pause = DEFAULT_RETRY_SECONDS if pause is None else pause
            if pause > left:
                break
            left -= pause
            self._sleep(pause)
        return answer

    @staticmethod
    def _checked(answer: httpx.Response) -> Mapping[str, Any]:
        if not answer.is_success:
            raise APIError.from_response(answer)
        try:
            content = answer.json()
        except ValueError:
            content = None
        return read_answer(answer.status_code, content)


def _file_name(image: bytes | Path | str | None) -> str:
    return Path(image).name if isinstance(image, Path | str) else "photo"
