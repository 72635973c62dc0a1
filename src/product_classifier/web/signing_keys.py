"""The ES256 keys: the private one that signs, the public ones that verify, and their JWK form."""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.files import canonical_json
from product_classifier.web.token_parts import TokenError, decode_segment, encode_segment

MAX_KEYS = 16  # a day of hurried rotations; a set with more is not ours
KID_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")

_COORDINATE_BYTES = 32
_FIXED_MEMBERS = {"kty": "EC", "crv": "P-256"}
_OPTIONAL_MEMBERS = {"alg": "ES256", "use": "sig", "key_ops": ["verify"]}


def _coordinates(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    return {
        name: encode_segment(value.to_bytes(_COORDINATE_BYTES, "big")).decode()
        for name, value in (("x", numbers.x), ("y", numbers.y))
    }


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """Names a key by its own content (RFC 7638), so that one `kid` can never stand for two keys."""
    members = canonical_json({**_FIXED_MEMBERS, **_coordinates(key)})
    return encode_segment(hashlib.sha256(members).digest()).decode()


@dataclass(frozen=True)
class SigningKey:
    """A private ES256 key. It shows itself by its `kid` only.

    Attributes:
        kid: Thumbprint of the public half.
        created_at: Seconds since 1970.
    """

    kid: str
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)
    created_at: int

    @classmethod
    def generate(cls, now: float | None = None) -> "SigningKey":
        """Makes a new key."""
        private = ec.generate_private_key(ec.SECP256R1())
        created = int(time.time() if now is None else now)
        return cls(thumbprint(private.public_key()), private, created)

    @classmethod
    def from_pem(cls, pem: str, created_at: int) -> "SigningKey":
        """Reads what `to_pem` wrote.

        Raises:
            ConfigurationError: not an unencrypted P-256 private key. The text is never repeated.
        """
        try:
            private = serialization.load_pem_private_key(pem.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
            raise ConfigurationError("A signing key is not a readable private key.") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not _is_p256(private.curve):
            raise ConfigurationError(
                "A signing key is not an elliptic-curve key on P-256 (ES256). "
                f"Received: {type(private).__name__}."
            )
        return cls(thumbprint(private.public_key()), private, created_at)

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The half that may be published."""
        return self.private_key.public_key()

    def to_pem(self) -> str:
        """Gives the private key as unencrypted PKCS 8 text: for the key file alone."""
        return self.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()


def _is_p256(curve: ec.EllipticCurve) -> bool:
    return isinstance(curve, ec.SECP256R1)


class VerificationKeys(Mapping[str, ec.EllipticCurvePublicKey]):
    """Public ES256 keys by `kid`. Never changes; a new set takes its place."""

    def __init__(self, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> None:
        self._keys = dict(keys)

    @classmethod
    def of(cls, *keys: SigningKey) -> "VerificationKeys":
        """Gives the public halves of signing keys."""
        return cls({key.kid: key.public_key for key in keys})

    @classmethod
    def from_jwks(cls, document: object) -> "VerificationKeys":
        """Reads a JWK set (RFC 7517) and takes it whole or not at all.

        One key that is not ours makes the set not ours: this is only ever read from `auth`.

        Raises:
            ConfigurationError: anything but 1 to `MAX_KEYS` public P-256 keys with a `kid` each.
        """
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_KEYS:
            raise ConfigurationError(f"A JWK set must have a list of 1 to {MAX_KEYS} keys.")
        keys: dict[str, ec.EllipticCurvePublicKey] = {}
        for entry in entries:
            kid, key = _read_jwk(entry)
            if kid in keys:
                raise ConfigurationError("A JWK set has two keys with one kid.")
            keys[kid] = key
        return cls(keys)

    def to_jwks(self) -> dict[str, list[dict[str, Any]]]:
        """Gives the JWK set to publish."""
        return {
            "keys": [
                {**_FIXED_MEMBERS, **_coordinates(key), "kid": kid, "alg": "ES256", "use": "sig"}
                for kid, key in self._keys.items()
            ]
        }

    def __getitem__(self, kid: str) -> ec.EllipticCurvePublicKey:
        return self._keys[kid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"VerificationKeys({', '.join(self._keys)})"


def _read_jwk(entry: object) -> tuple[str, ec.EllipticCurvePublicKey]:
    if not isinstance(entry, dict):
        raise ConfigurationError("A JWK set holds something that is not a key.")
    if "d" in entry or "k" in entry:
        raise ConfigurationError("A JWK set holds a private or symmetric key. It must be public.")
    kid = entry.get("kid")
    if not isinstance(kid, str) or not KID_PATTERN.fullmatch(kid):
        raise ConfigurationError("A JWK has no usable kid (1 to 64 of A-Z a-z 0-9 _ -).")
    wrong = [name for name, value in _FIXED_MEMBERS.items() if entry.get(name) != value]
    wrong += [name for name, value in _OPTIONAL_MEMBERS.items() if entry.get(name, value) != value]
    if wrong:
        raise ConfigurationError(f"A JWK is not an ES256 verification key: {', '.join(wrong)}.")
    x, y = (_read_coordinate(entry.get(name)) for name in ("x", "y"))
    try:
        return kid, ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise ConfigurationError("A JWK is not a point on P-256.") from None


def _read_coordinate(value: object) -> int:
    if not isinstance(value, str) or not value.isascii():
        raise ConfigurationError("A JWK has a coordinate that is not base64url text.")
    try:
        data = decode_segment(value.encode(), "key")
    except TokenError:
        raise ConfigurationError("A JWK has a coordinate that is not base64url.") from None
    if len(data) != _COORDINATE_BYTES:
        raise ConfigurationError(f"A JWK has a coordinate that is not {_COORDINATE_BYTES} bytes.")
    return int.from_bytes(data, "big")
