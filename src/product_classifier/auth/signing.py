"""How auth signs and believes tokens: ES256 with the keys of `keys.py`, or HS256 with SECRET_KEY. One, never both."""

from typing import Any

from product_classifier.auth.keys import KeyStore
from product_classifier.auth.users import Account
from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import AuthSettings
from product_classifier.web.tokens import TokenClaims, TokenSigner, TokenVerifier


class Signing:
    """Signs, verifies and publishes. Follows a rotation by another process at the next call."""

    def __init__(self, settings: AuthSettings) -> None:
        """Opens the keys; makes the first one where ES256 has none.

        Raises:
            ConfigurationError: a key or SECRET_KEY can't be used.
        """
        self.lifetime_seconds = settings.token_lifetime_seconds
        self._store: KeyStore | None = None
        if settings.algorithm == "HS256":
            if settings.secret_key is None:
                raise ConfigurationError("SECRET_KEY is missing: ALGORITHM=HS256 signs with it.")
            secret = settings.secret_key.get_secret_value()
            self._signer: tuple[str, TokenSigner] = ("", self._new_signer(secret))
            self._verifier: tuple[tuple[str, ...], TokenVerifier] = ((), TokenVerifier(secret))
            return
        self._store = KeyStore(settings.auth_data_path)
        key, keys = self._store.current(), self._store.verification_keys()
        self._signer = (key.kid, self._new_signer(key))
        self._verifier = (tuple(keys), TokenVerifier(keys))

    def _new_signer(self, key: Any) -> TokenSigner:
        return TokenSigner(key, lifetime_seconds=self.lifetime_seconds)

    def issue(self, account: Account, session_id: str) -> str:
        """Signs an access token for a session of a user."""
        if self._store is not None:
            key = self._store.current()
            if key.kid != self._signer[0]:
                self._signer = (key.kid, self._new_signer(key))
        return self._signer[1].issue(account.name, account.role, session_id)

    def verify(self, token: str) -> TokenClaims:
        """Gives what a valid token says.

        Raises:
            TokenError: it is not valid.
        """
        if self._store is not None:
            keys = self._store.verification_keys()
            if tuple(keys) != self._verifier[0]:
                self._verifier = (tuple(keys), TokenVerifier(keys))
        return self._verifier[1].verify(token)

    def jwks(self) -> dict[str, Any]:
        """Gives the public keys; a secret has none."""
        if self._store is None:
            return {"keys": []}
        return self._store.verification_keys().to_jwks()

    def check(self) -> None:
        """Makes sure that tokens can be signed.

        Raises:
            ProductClassifierError: they can't.
        """
        if self._store is not None:
            self._store.current()
