"""The one door to python-jose: how tokens are signed and how they are believed.

python-jose 3.5.0 turns alg=none and ordinary confusion away. It also takes unknown `crit` headers, missing `aud`,
`exp` and `sub`, `exp` as text, altered tail bits, ignores `kid`, raises RecursionError on a nested header, and takes a
DER public key as an HMAC secret where both families are allowed (CVE-2026-85394). So its readers of tokens are not
used at all: `token_parts` takes a token apart, the algorithm is fixed when a key object is built, and jose is asked
one question only: does this key confirm this signature over these bytes?
"""

import json
import secrets
import time
from typing import Protocol, cast

from jose import jwk
from jose.exceptions import JOSEError

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.files import canonical_json
from product_classifier.core.settings import MIN_KEY_BYTES
from product_classifier.web.signing_keys import KID_PATTERN, SigningKey, VerificationKeys
from product_classifier.web.token_claims import (
    MAX_LIFETIME_SECONDS,
    Role,
    TokenClaims,
    check_claims,
)
from product_classifier.web.token_parts import (
    MAX_TOKEN_BYTES,
    TOKEN_REASONS,
    TokenError,
    TokenParts,
    TokenReason,
    encode_segment,
    split_token,
)

__all__ = [
    "AUDIENCE",
    "ISSUER",
    "MAX_LIFETIME_SECONDS",
    "MAX_TOKEN_BYTES",
    "TOKEN_REASONS",
    "KeysUnavailable",
    "Role",
    "SigningKey",
    "TokenClaims",
    "TokenError",
    "TokenReason",
    "TokenSigner",
    "TokenVerifier",
    "VerificationKeys",
]

ISSUER = "product-classifier"
AUDIENCE = "product-classifier-api"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068: no other JWT of ours can pass for an access token

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SIGNATURE_BYTES = {"ES256": 64, "HS256": 32}


class _Key(Protocol):
    def sign(self, msg: bytes) -> bytes: ...

    def verify(self, msg: bytes, sig: bytes) -> bool: ...


class KeysUnavailable(TokenError):
    """No key is there to check any token with: not the token's fault, so it is worth trying again."""

    def __init__(self) -> None:
        super().__init__("unavailable", "Tokens can't be checked yet: no key of auth is known.")


def _build_secret_key(secret: str) -> _Key:
    """Builds the HMAC key once; refuses what is too short or is somebody's published key."""
    try:
        data = secret.encode()
    except UnicodeEncodeError:  # bytes of the environment that are no text come as lone surrogates
        raise ConfigurationError("SECRET_KEY is not UTF-8 text.") from None
    if len(data) < MIN_KEY_BYTES:
        raise ConfigurationError(
            f"SECRET_KEY must have at least {MIN_KEY_BYTES} bytes for HS256. It has {len(data)}."
        )
    try:
        if data.lstrip().startswith(b"{") and b'"kty"' in data:
            raise JOSEError  # a JWK
        return cast(_Key, jwk.construct(data, "HS256"))  # refuses PEM, certificates and SSH keys
    except JOSEError:
        raise ConfigurationError(
            "SECRET_KEY is a key pair's key, not a random secret: use `openssl rand -hex 32`."
        ) from None


class TokenSigner:
    """Signs access tokens with one key of one family."""

    def __init__(
        self,
        key: SigningKey | str,
        *,
        issuer: str = ISSUER,
        audience: str = AUDIENCE,
        lifetime_seconds: int,
    ) -> None:
        """Builds the key object.

        Args:
            key: An ES256 key, or the secret text of HS256.
            issuer: Goes into `iss`.
            audience: Goes into `aud`.
            lifetime_seconds: How long a token is valid, 1 to `MAX_LIFETIME_SECONDS`.

        Raises:
            ConfigurationError: the secret or the lifetime can't be used.
        """
        if not 1 <= lifetime_seconds <= MAX_LIFETIME_SECONDS:
            raise ConfigurationError(
                f"A token's lifetime must be 1 to {MAX_LIFETIME_SECONDS} seconds. "
                f"Received: {lifetime_seconds}."
            )
        self._fixed = {"iss": issuer, "aud": audience}
        self._issuer, self._audience = issuer, audience
        self.lifetime_seconds = lifetime_seconds
        header = {"typ": TOKEN_TYPE}
        if isinstance(key, SigningKey):
            header |= {"alg": "ES256", "kid": key.kid}
            self._key = cast(_Key, jwk.construct(key.private_key, "ES256"))
        else:
            header |= {"alg": "HS256"}
            self._key = _build_secret_key(key)
        self._is_ecdsa = isinstance(key, SigningKey)
        self._header = encode_segment(canonical_json(header))

    def issue(self, subject: str, role: Role, session_id: str, now: float | None = None) -> str:
        """Signs a token.

        Args:
            subject: Whose token it is: 1 to 255 printable characters.
            role: What the bearer may do.
            session_id: The refresh family; letters, digits and `_.:-`.
            now: Seconds since 1970; the clock's time if None.

        Raises:
            TokenError: the values would make a token that the verifier refuses (`claims`, `too_large`).
        """
        issued = int(time.time() if now is None else now)
        payload = json.dumps(
            {
                **self._fixed,
                "sub": subject,
                "role": role,
                "iat": issued,
                "exp": issued + self.lifetime_seconds,
                "jti": secrets.token_urlsafe(16),
                "sid": session_id,
            },
            separators=(",", ":"),
        ).encode()
        check_claims(payload, issued, self._issuer, self._audience)
        signing_input = self._header + b"." + encode_segment(payload)
        signature = self._key.sign(signing_input)
        if self._is_ecdsa:
            signature = _with_low_s(signature)
        token = (signing_input + b"." + encode_segment(signature)).decode("ascii")
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenError("too_large", f"The token would pass {MAX_TOKEN_BYTES} bytes.")
        return token


def _has_low_s(signature: bytes) -> bool:
    return int.from_bytes(signature[32:], "big") <= _P256_ORDER // 2


def _with_low_s(signature: bytes) -> bytes:
    """Gives the one of the two equally valid ECDSA signatures whose second half is the smaller number."""
    if _has_low_s(signature):
        return signature
    other = _P256_ORDER - int.from_bytes(signature[32:], "big")
    return signature[:32] + other.to_bytes(32, "big")


class TokenVerifier:
    """Verifies access tokens of one family, and never takes the other's."""

    def __init__(
        self,
        keys: VerificationKeys | str,
        *,
        issuer: str = ISSUER,
        audience: str = AUDIENCE,
    ) -> None:
        """Builds the key objects once.

        Args:
            keys: Public ES256 keys, or the secret text of HS256.
            issuer: What `iss` must be.
            audience: What `aud` must be.

        Raises:
            ConfigurationError: the secret can't be used.
        """
        self._issuer, self._audience = issuer, audience
        self._secret: _Key | None = None
        self._keys: dict[str, _Key] = {}
        if isinstance(keys, str):
            self._secret = _build_secret_key(keys)
        else:
            self._keys = {kid: cast(_Key, jwk.construct(key, "ES256")) for kid, key in keys.items()}

    def verify(self, token: str, now: float | None = None) -> TokenClaims:
        """Gives the claims of a token that is genuine and valid now.

        Raises:
            TokenError: for every other token, and nothing else whatever the token is.
        """
        parts = split_token(token)
        algorithm = "ES256" if self._secret is None else "HS256"
        key = self._choose_key(parts, algorithm)
        if len(parts.signature) != _SIGNATURE_BYTES[algorithm]:
            raise TokenError("signature", "The token's signature has the wrong length.")
        if algorithm == "ES256" and not _has_low_s(parts.signature):
            # Anyone can turn s into n - s: refused, so that nobody but auth can make another text of a token.
            raise TokenError("signature", "The token's signature is not in its one form.")
        if key.verify(parts.signing_input, parts.signature) is not True:
            raise TokenError("signature", "The token's signature is wrong.")
        moment = time.time() if now is None else now
        return check_claims(parts.payload, moment, self._issuer, self._audience)

    def _choose_key(self, parts: TokenParts, algorithm: str) -> _Key:
        """Checks the header, which only ever picks among our keys, never how one is used."""
        header = parts.header
        if header.get("alg") != algorithm:
            raise TokenError("algorithm", f"The token is not signed with {algorithm}.")
        if header.get("typ") != TOKEN_TYPE:
            raise TokenError("type", f"The token's typ is not {TOKEN_TYPE}.")
        allowed = {"alg", "typ"} if self._secret is not None else {"alg", "typ", "kid"}
        if header.keys() - allowed:
            raise TokenError("malformed", "The token's header has members that are not allowed.")
        if self._secret is not None:
            return self._secret
        kid = header.get("kid")
        if not isinstance(kid, str) or not KID_PATTERN.fullmatch(kid):
            raise TokenError("malformed", "The token's header has no usable kid.")
        if kid not in self._keys:
            raise TokenError("key_unknown", "The token's key is not known.")
        return self._keys[kid]
