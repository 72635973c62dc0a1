"""Tokens that must never be believed: named cases and seeded mutations, for the verifiers and for both services.

`CASES` is a list of (name, make): `make(forge)` gives a token that an attacker could send, or that a careless signer
could have made with the right key. `mutate_tokens` spoils valid tokens at random. Signing is done here with
`cryptography` alone: the code under test signs nothing for its attacker.
"""

import base64
import hashlib
import hmac
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from product_classifier.web.tokens import (
    SigningKey,
    TokenSigner,
    TokenVerifier,
    VerificationKeys,
)

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
DROP = object()


def encode(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(segment: str) -> bytes:
    """The bytes of a segment that is well formed."""
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def dump(value: Any) -> bytes:
    """JSON as the signer writes it; NaN and the infinities as Python writes them."""
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def sign_es256(private_key: ec.EllipticCurvePrivateKey, data: bytes, *, low: bool = True) -> bytes:
    """r and s, 32 bytes each, with the smaller or the larger of the two valid s."""
    r, s = decode_dss_signature(private_key.sign(data, ec.ECDSA(hashes.SHA256())))
    s = min(s, P256_ORDER - s) if low else max(s, P256_ORDER - s)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def sign_hs256(secret: bytes, data: bytes) -> bytes:
    """HMAC-SHA-256."""
    return hmac.new(secret, data, hashlib.sha256).digest()


@dataclass
class Forge:
    """What forging needs: the true keys of one family (for tokens that are wrong though well signed) and the clock."""

    algorithm: str
    key: SigningKey
    secret: str
    now: int
    subject: str = "alice"
    session_id: str = "family-1"
    attacker: SigningKey = field(default_factory=SigningKey.generate)

    def signer(self, lifetime_seconds: int = 1800) -> TokenSigner:
        """The service's own signer."""
        key = self.key if self.algorithm == "ES256" else self.secret
        return TokenSigner(key, lifetime_seconds=lifetime_seconds)

    def verifier(self) -> TokenVerifier:
        """The verifier under attack."""
        if self.algorithm == "ES256":
            return TokenVerifier(VerificationKeys.of(self.key))
        return TokenVerifier(self.secret)

    def valid(self) -> str:
        """A token that must be taken at `now`."""
        return self.signer().issue(self.subject, "user", self.session_id, self.now)

    def header(self, **changes: Any) -> dict[str, Any]:
        """The right header, with changes; `DROP` takes a member out."""
        right = {"alg": self.algorithm, "typ": "at+jwt"}
        if self.algorithm == "ES256":
            right["kid"] = self.key.kid
        return {name: value for name, value in (right | changes).items() if value is not DROP}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The right claims, with changes; `DROP` takes a member out."""
        right = {
            "iss": "product-classifier",
            "aud": "product-classifier-api",
            "sub": self.subject,
            "role": "user",
            "iat": self.now,
            "exp": self.now + 1800,
            "jti": "id-1",
            "sid": self.session_id,
        }
        return {name: value for name, value in (right | changes).items() if value is not DROP}

    def sign(self, data: bytes) -> bytes:
        """Signs as the service would."""
        if self.algorithm == "ES256":
            return sign_es256(self.key.private_key, data)
        return sign_hs256(self.secret.encode(), data)

    def token(
        self,
        header: Any = None,
        claims: Any = None,
        *,
        sign: Callable[[bytes], bytes] | None = None,
    ) -> str:
        """A token of any header and payload (objects or raw bytes), signed by `sign` or with the true key."""
        head = dump(self.header() if header is None else header)
        payload = dump(self.claims() if claims is None else claims)
        signing_input = f"{encode(head)}.{encode(payload)}"
        return f"{signing_input}.{encode((sign or self.sign)(signing_input.encode()))}"

    def with_header(self, **changes: Any) -> str:
        """A well signed token with another header."""
        return self.token(self.header(**changes))

    def with_claims(self, **changes: Any) -> str:
        """A well signed token with other claims."""
        return self.token(claims=self.claims(**changes))

    def with_raw_claim(self, name: str, text: str) -> str:
        """A well signed token where one claim has a spelling that `json.dumps` does not give."""
        payload = dump(self.claims(**{name: "@@"})).replace(b'"@@"', text.encode())
        return self.token(claims=payload)

    def by_attacker(self, **header: Any) -> str:
        """An ES256 token of the attacker's own key."""
        return self.token(
            self.header(alg="ES256", **header),
            sign=lambda data: sign_es256(self.attacker.private_key, data),
        )

    def as_hmac(self, secret: bytes, **header: Any) -> str:
        """An HS256 token signed with what is public."""
        return self.token(
            self.header(**({"alg": "HS256"} | header)), sign=lambda data: sign_hs256(secret, data)
        )

    def public(self, encoding: str, form: str) -> bytes:
        """The public key as everybody may have it."""
        return self.key.public_key.public_bytes(
            getattr(serialization.Encoding, encoding),
            getattr(serialization.PublicFormat, form),
        )

    def jwk(self, key: SigningKey | None = None) -> dict[str, Any]:
        """A public key as a JWK."""
        return VerificationKeys.of(key or self.key).to_jwks()["keys"][0]

    def parts(self) -> tuple[str, str, str]:
        """A valid token's three segments."""
        header, payload, signature = self.valid().split(".")
        return header, payload, signature


Make = Callable[[Forge], str]
CASES: list[tuple[str, Make]] = []
REASONS: dict[str, str] = {}  # what an ES256 verifier says, where that is fixed


def _add(name: str, reason: str, make: Make) -> None:
    CASES.append((name, make))
    REASONS[name] = reason


def _empty(data: bytes) -> bytes:
    return b""


def _unsigned(forge: Forge, **header: Any) -> str:
    """As alg=none wants it: nothing behind the second dot."""
    return forge.token(forge.header(**header), sign=_empty)


# --- algorithms -----------------------------------------------------------------------------------------------

for _spelling in (
    "none",
    "None",
    "NONE",
    "nOnE",
    "",
    " none",
    "none\x00",
    "ES256 ",
    "es256",
    "hs256",
):
    _name = _spelling.encode("unicode_escape").decode().replace(" ", "_") or "empty"
    _add(f"alg-{_name}-unsigned", "malformed", lambda f, s=_spelling: _unsigned(f, alg=s))
    _add(f"alg-{_name}-signed", "algorithm", lambda f, s=_spelling: f.with_header(alg=s))

for _algorithm in (
    "ES384",
    "ES512",
    "ES256K",
    "RS256",
    "PS256",
    "EdDSA",
    "HS384",
    "HS512",
    "dir",
    "A128KW",
):
    _add(f"alg-{_algorithm}", "algorithm", lambda f, a=_algorithm: f.with_header(alg=a))

_add("alg-missing", "algorithm", lambda f: f.with_header(alg=DROP))
_add("alg-null", "algorithm", lambda f: f.with_header(alg=None))
_add("alg-number", "algorithm", lambda f: f.with_header(alg=256))
_add("alg-list", "algorithm", lambda f: f.with_header(alg=["ES256", "HS256"]))
_add("alg-object", "algorithm", lambda f: f.with_header(alg={"ES256": 1}))
_add(
    "alg-other-family-well-signed",
    "algorithm",
    lambda f: (
        f.as_hmac(f.secret.encode())
        if f.algorithm == "ES256"
        else f.token(
            f.header(alg="ES256", kid=f.key.kid),
            sign=lambda data: sign_es256(f.key.private_key, data),
        )
    ),
)


def _rs256(forge: Forge) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return forge.token(
        forge.header(alg="RS256"),
        sign=lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256()),
    )


_add("alg-RS256-own-key", "algorithm", _rs256)

# --- the public key as a secret -------------------------------------------------------------------------------

_PUBLIC: dict[str, Callable[[Forge], bytes]] = {
    "pem": lambda f: f.public("PEM", "SubjectPublicKeyInfo"),
    "pem-stripped": lambda f: f.public("PEM", "SubjectPublicKeyInfo").strip(),
    "der": lambda f: f.public("DER", "SubjectPublicKeyInfo"),
    "ssh": lambda f: f.public("OpenSSH", "OpenSSH"),
    "point": lambda f: f.public("X962", "UncompressedPoint"),
    "point-compressed": lambda f: f.public("X962", "CompressedPoint"),
    "jwk": lambda f: dump(f.jwk()),
    "jwk-sorted": lambda f: json.dumps(f.jwk(), sort_keys=True).encode(),
    "jwks": lambda f: dump({"keys": [f.jwk()]}),
    "kid": lambda f: f.key.kid.encode(),
    "empty": lambda f: b"",
    "zero": lambda f: b"\0",
    "word": lambda f: b"secret",
}
for _form, _material in _PUBLIC.items():
    _right = "algorithm"
    _add(f"hmac-with-{_form}", _right, lambda f, m=_material: f.as_hmac(m(f)))
    # The signature of the other family under our own alg: the length gives it away, and nothing else is tried.
    _add(
        f"hmac-with-{_form}-under-our-alg",
        "signature",
        lambda f, m=_material: f.as_hmac(m(f), alg=f.algorithm),
    )

# --- keys that the token brings itself ------------------------------------------------------------------------

_add("attacker-key-our-kid", "signature", lambda f: f.by_attacker())
_add("attacker-key-own-kid", "key_unknown", lambda f: f.by_attacker(kid=f.attacker.kid))
_add("embedded-jwk", "malformed", lambda f: f.by_attacker(jwk=f.jwk(f.attacker)))
_add(
    "embedded-jwk-own-kid",
    "malformed",
    lambda f: f.by_attacker(jwk=f.jwk(f.attacker), kid=f.attacker.kid),
)
_add("embedded-jwk-well-signed", "malformed", lambda f: f.with_header(jwk=f.jwk()))
_add("jku", "malformed", lambda f: f.by_attacker(jku="http://127.0.0.1:9/jwks.json"))
_add("jku-well-signed", "malformed", lambda f: f.with_header(jku="http://127.0.0.1:9/jwks.json"))
_add("x5u", "malformed", lambda f: f.by_attacker(x5u="http://127.0.0.1:9/chain.pem"))
_add("x5c", "malformed", lambda f: f.by_attacker(x5c=["MIIB"]))
_add("x5t", "malformed", lambda f: f.with_header(x5t="AAAA"))
_add("x5t-s256", "malformed", lambda f: f.with_header(**{"x5t#S256": "AAAA"}))

# --- kid --------------------------------------------------------------------------------------------------------

for _name, _kid, _reason in (
    ("unknown", "other", "key_unknown"),
    ("path", "../../../../dev/null", "malformed"),
    ("sql", "x' UNION SELECT 'secret'--", "malformed"),
    ("url", "http://127.0.0.1:9/key", "malformed"),
    ("empty", "", "malformed"),
    ("long", "k" * 1000, "malformed"),
    ("null", None, "malformed"),
    ("number", 0, "malformed"),
    ("bool", True, "malformed"),
    ("list", ["a"], "malformed"),
    ("object", {"a": 1}, "malformed"),
    ("zero-byte", "a\x00b", "malformed"),
    ("line-break", "a\n", "malformed"),
    ("surrogate", "\ud800", "malformed"),
    ("dunder", "__class__", "key_unknown"),
):
    _add(f"kid-{_name}", _reason, lambda f, k=_kid: f.with_header(kid=k))
_add("kid-trailing-space", "malformed", lambda f: f.with_header(kid=f.key.kid + " "))
_add("kid-other-case", "key_unknown", lambda f: f.with_header(kid=f.key.kid.swapcase()))
# HS256 has one key and no kid: there a kid is what is not allowed.
_add(
    "kid-missing-or-too-many",
    "malformed",
    lambda f: f.with_header(kid=DROP if f.algorithm == "ES256" else f.key.kid),
)

# --- other header members -------------------------------------------------------------------------------------

_add("crit-unknown", "malformed", lambda f: f.with_header(crit=["x-unknown"], **{"x-unknown": 1}))
_add("crit-empty", "malformed", lambda f: f.with_header(crit=[]))
_add("crit-exp", "malformed", lambda f: f.with_header(crit=["exp"], exp=f.now + 60))
_add("crit-text", "malformed", lambda f: f.with_header(crit="exp"))
_add("b64-false", "malformed", lambda f: f.with_header(b64=False, crit=["b64"]))
_add("b64-false-no-crit", "malformed", lambda f: f.with_header(b64=False))
_add("b64-true", "malformed", lambda f: f.with_header(b64=True))
_add("zip-deflate", "malformed", lambda f: f.with_header(zip="DEF"))
_add("enc", "malformed", lambda f: f.with_header(enc="A128GCM"))
_add("cty-jwt", "malformed", lambda f: f.with_header(cty="JWT"))
_add("header-unknown-member", "malformed", lambda f: f.with_header(extra="1"))
_add("header-claims", "malformed", lambda f: f.with_header(iss="product-classifier"))
_add("typ-missing", "type", lambda f: f.with_header(typ=DROP))
_add("typ-JWT", "type", lambda f: f.with_header(typ="JWT"))
_add("typ-id-token", "type", lambda f: f.with_header(typ="id+jwt"))
_add("typ-other-case", "type", lambda f: f.with_header(typ="AT+JWT"))
_add("typ-long-form", "type", lambda f: f.with_header(typ="application/at+jwt"))
_add("typ-null", "type", lambda f: f.with_header(typ=None))
_add("typ-list", "type", lambda f: f.with_header(typ=["at+jwt"]))


def _insert(data: bytes, text: bytes) -> bytes:
    return data[:-1] + b"," + text + b"}"


_add(
    "header-duplicate-alg",
    "malformed",
    lambda f: f.token(_insert(dump(f.header()), b'"alg":"none"')),
)
_add(
    "header-duplicate-alg-same",
    "malformed",
    lambda f: f.token(_insert(dump(f.header()), f'"alg":"{f.algorithm}"'.encode())),
)
_add(
    "header-duplicate-alg-escaped",
    "malformed",
    lambda f: f.token(_insert(dump(f.header()), b'"al\\u0067":"none"')),
)
_add(
    "header-duplicate-kid",
    "malformed",
    lambda f: f.token(_insert(dump(f.header()), b'"kid":"b","kid":"c"')),
)
_add("header-nested-1000", "malformed", lambda f: f.token(b'{"a":' * 300 + b"1" + b"}" * 300))
_add("header-nested-list", "malformed", lambda f: f.token(b"[" * 1200 + b"]" * 1200))
_add("header-list", "malformed", lambda f: f.token(b'["alg","ES256"]'))
_add("header-text", "malformed", lambda f: f.token(b'"ES256"'))
_add("header-null", "malformed", lambda f: f.token(b"null"))
_add("header-empty-object", "algorithm", lambda f: f.token(b"{}"))
_add("header-not-json", "malformed", lambda f: f.token(b"alg=ES256"))
_add("header-trailing-text", "malformed", lambda f: f.token(dump(f.header()) + b"x"))
_add("header-two-objects", "malformed", lambda f: f.token(dump(f.header()) * 2))
_add("header-byte-order-mark", "malformed", lambda f: f.token(b"\xef\xbb\xbf" + dump(f.header())))
_add("header-utf16", "malformed", lambda f: f.token(dump(f.header()).decode().encode("utf-16")))
_add("header-not-utf8", "malformed", lambda f: f.token(dump(f.header()).replace(b"jwt", b"jw\xff")))
_add("header-nan", "malformed", lambda f: f.with_header(x=float("nan")))

# --- claims -----------------------------------------------------------------------------------------------------

_CLAIM_REASON = {"iss": "issuer", "aud": "audience"}
for _claim in ("iss", "aud", "sub", "role", "iat", "exp", "jti", "sid"):
    _why = _CLAIM_REASON.get(_claim, "claims")
    _add(f"{_claim}-missing", _why, lambda f, c=_claim: f.with_claims(**{c: DROP}))
    for _name, _value in (
        ("null", None),
        ("list", ["user"]),
        ("object", {}),
        ("bool", True),
        ("empty", ""),
    ):
        _add(f"{_claim}-{_name}", _why, lambda f, c=_claim, v=_value: f.with_claims(**{c: v}))
    _add(
        f"{_claim}-twice",
        "malformed",
        lambda f, c=_claim: f.token(
            claims=_insert(dump(f.claims()), f'"{c}":{json.dumps(f.claims()[c])}'.encode())
        ),
    )
for _claim in ("sub", "role", "jti", "sid"):
    _add(f"{_claim}-number", "claims", lambda f, c=_claim: f.with_claims(**{c: 7}))
    _add(f"{_claim}-line-break", "claims", lambda f, c=_claim: f.with_claims(**{c: "a\r\nb"}))
    _add(f"{_claim}-surrogate", "claims", lambda f, c=_claim: f.with_claims(**{c: "a\udfff"}))
for _claim in ("iat", "exp", "nbf"):
    _add(f"{_claim}-text", "claims", lambda f, c=_claim: f.with_claims(**{c: str(f.now + 1)}))
    _add(f"{_claim}-infinite", "malformed", lambda f, c=_claim: f.with_claims(**{c: float("inf")}))
    _add(
        f"{_claim}-minus-infinite",
        "malformed",
        lambda f, c=_claim: f.with_claims(**{c: -float("inf")}),
    )
    _add(f"{_claim}-nan", "malformed", lambda f, c=_claim: f.with_claims(**{c: float("nan")}))
    _add(f"{_claim}-fraction", "malformed", lambda f, c=_claim: f.with_claims(**{c: f.now + 0.5}))
    _add(f"{_claim}-1e400", "malformed", lambda f, c=_claim: f.with_raw_claim(c, "1e400"))
    _add(f"{_claim}-exponent", "malformed", lambda f, c=_claim: f.with_raw_claim(c, "2e9"))
    _add(f"{_claim}-2000-digits", "malformed", lambda f, c=_claim: f.with_raw_claim(c, "9" * 2000))
    _add(f"{_claim}-negative", "claims", lambda f, c=_claim: f.with_claims(**{c: -1}))
    _add(f"{_claim}-false", "claims", lambda f, c=_claim: f.with_claims(**{c: False}))
    _add(
        f"{_claim}-hexadecimal", "malformed", lambda f, c=_claim: f.with_raw_claim(c, "0x7fffffff")
    )
_add("exp-past", "expired", lambda f: f.with_claims(iat=f.now - 60, exp=f.now - 1))
_add("exp-now", "expired", lambda f: f.with_claims(iat=f.now - 60, exp=f.now))
_add("exp-before-iat", "claims", lambda f: f.with_claims(iat=f.now, exp=f.now - 60))
_add("exp-equals-iat", "claims", lambda f: f.with_claims(exp=f.now))
_add("exp-far", "claims", lambda f: f.with_claims(exp=f.now + 10 * 365 * 86_400))
_add("exp-a-second-over-a-day", "claims", lambda f: f.with_claims(exp=f.now + 86_401))
_add("exp-milliseconds", "claims", lambda f: f.with_claims(exp=(f.now + 60) * 1000))
_add(
    "times-in-milliseconds",
    "not_yet_valid",
    lambda f: f.with_claims(iat=f.now * 1000, exp=f.now * 1000 + 60),
)
_add("iat-future", "not_yet_valid", lambda f: f.with_claims(iat=f.now + 60, exp=f.now + 120))
_add("nbf-future", "not_yet_valid", lambda f: f.with_claims(nbf=f.now + 60))
_add("nbf-null", "claims", lambda f: f.with_claims(nbf=None))
_add("aud-other", "audience", lambda f: f.with_claims(aud="airflow"))
_add("aud-in-list", "audience", lambda f: f.with_claims(aud=["product-classifier-api"]))
_add("aud-prefix", "audience", lambda f: f.with_claims(aud="product-classifier-api-2"))
_add("aud-other-case", "audience", lambda f: f.with_claims(aud="Product-Classifier-API"))
_add("iss-other", "issuer", lambda f: f.with_claims(iss="https://login.invalid"))
_add("iss-trailing-slash", "issuer", lambda f: f.with_claims(iss="product-classifier/"))
_add("iss-in-list", "issuer", lambda f: f.with_claims(iss=["product-classifier"]))
_add("role-root", "claims", lambda f: f.with_claims(role="root"))
_add("role-other-case", "claims", lambda f: f.with_claims(role="Admin"))
_add("role-both", "claims", lambda f: f.with_claims(role="user admin"))
_add(
    "role-admin-twice",
    "malformed",
    lambda f: f.token(claims=_insert(dump(f.claims()), b'"role":"admin"')),
)
_add(
    "role-admin-twice-escaped",
    "malformed",
    lambda f: f.token(claims=_insert(dump(f.claims()), b'"rol\\u0065":"admin"')),
)
_add("sub-long", "claims", lambda f: f.with_claims(sub="a" * 256))
_add("sub-zero-byte", "claims", lambda f: f.with_claims(sub="alice\x00"))
_add("sub-space", "claims", lambda f: f.with_claims(sub="alice "))
_add("sub-direction-mark", "claims", lambda f: f.with_claims(sub="\u202eecila"))
_add("jti-long", "claims", lambda f: f.with_claims(jti="a" * 129))
_add("sid-path", "claims", lambda f: f.with_claims(sid="../../x"))
_add("payload-list", "malformed", lambda f: f.token(claims=b"[]"))
_add("payload-text", "malformed", lambda f: f.token(claims=b'"alice"'))
_add("payload-number", "malformed", lambda f: f.token(claims=b"1"))
_add("payload-not-json", "malformed", lambda f: f.token(claims=b"sub=alice"))
_add("payload-empty-object", "issuer", lambda f: f.token(claims=b"{}"))
_add("payload-nested", "malformed", lambda f: f.token(claims=b'{"a":' * 400 + b"1" + b"}" * 400))
_add(
    "payload-byte-order-mark",
    "malformed",
    lambda f: f.token(claims=b"\xef\xbb\xbf" + dump(f.claims())),
)
_add("payload-trailing-text", "malformed", lambda f: f.token(claims=dump(f.claims()) + b"//"))
_add(
    "payload-single-quotes",
    "malformed",
    lambda f: f.token(claims=dump(f.claims()).replace(b'"', b"'")),
)
_add("payload-is-a-token", "malformed", lambda f: f.token(claims=f.valid().encode()))

# --- signatures -----------------------------------------------------------------------------------------------


def _replace_signature(forge: Forge, change: Callable[[bytes], bytes]) -> str:
    header, payload, signature = forge.parts()
    return f"{header}.{payload}.{encode(change(decode(signature)))}"


def _change_payload(forge: Forge, **changes: Any) -> str:
    header, _, signature = forge.parts()
    return f"{header}.{encode(dump(forge.claims(**changes)))}.{signature}"


def _high_s(forge: Forge) -> str:
    """The other valid ECDSA signature, which anybody can work out. HMAC has no such thing: a bit is flipped."""
    if forge.algorithm == "ES256":
        return forge.token(sign=lambda data: sign_es256(forge.key.private_key, data, low=False))
    return _replace_signature(forge, lambda s: s[:-1] + bytes([s[-1] ^ 1]))


def _der_signature(forge: Forge) -> str:
    return forge.token(
        sign=lambda data: forge.key.private_key.sign(data, ec.ECDSA(hashes.SHA256()))
    )


_add("role-raised-old-signature", "signature", lambda f: _change_payload(f, role="admin"))
_add("life-stretched-old-signature", "signature", lambda f: _change_payload(f, exp=f.now + 80_000))
_add("signature-empty", "malformed", lambda f: ".".join((*f.parts()[:2], "")))
_add("signature-zeros", "signature", lambda f: _replace_signature(f, lambda s: bytes(len(s))))
_add("signature-ones", "signature", lambda f: _replace_signature(f, lambda s: b"\xff" * len(s)))
_add("signature-r-zero", "signature", lambda f: _replace_signature(f, lambda s: bytes(32) + s[32:]))
_add("signature-s-zero", "signature", lambda f: _replace_signature(f, lambda s: s[:32] + bytes(32)))
_add("signature-one-short", "signature", lambda f: _replace_signature(f, lambda s: s[:-1]))
_add("signature-one-long", "signature", lambda f: _replace_signature(f, lambda s: s + b"\0"))
_add("signature-doubled", "signature", lambda f: _replace_signature(f, lambda s: s * 2))
_add(
    "signature-halves-swapped",
    "signature",
    lambda f: _replace_signature(f, lambda s: s[len(s) // 2 :] + s[: len(s) // 2]),
)
_add(
    "signature-order",
    "signature",
    lambda f: _replace_signature(f, lambda s: P256_ORDER.to_bytes(32, "big") * 2),
)
_add(
    "signature-s-plus-order",
    "signature",
    lambda f: _replace_signature(
        f,
        lambda s: (
            s[:32] + ((int.from_bytes(s[32:], "big") + P256_ORDER) % (1 << 256)).to_bytes(32, "big")
        ),
    ),
)
_add("signature-high-s", "signature", _high_s)
_add("signature-der", "signature", _der_signature)
_add(
    "signature-of-another-token",
    "signature",
    lambda f: ".".join((*f.parts()[:2], f.token(claims=f.claims(sub="bob")).split(".")[2])),
)

# --- spelling of base64url --------------------------------------------------------------------------------------


def _alter_tail(segment: str) -> str:
    """The same bytes in another spelling: the bits behind the last byte, which lenient readers drop."""
    index = ALPHABET.index(segment[-1])
    return segment[:-1] + ALPHABET[index ^ 1]


def _with_tail_bits(forge: Forge, position: int) -> str:
    """A segment whose length leaves spare bits, with those bits set; the signature is right for what is sent."""
    spaces = 0
    while True:
        header = encode(dump(forge.header()) + b" " * (spaces if position == 0 else 0))
        payload = encode(dump(forge.claims()) + b" " * (spaces if position == 1 else 0))
        if len((header, payload)[position]) % 4 in (2, 3):
            break
        spaces += 1
    if position == 0:
        header = _alter_tail(header)
    else:
        payload = _alter_tail(payload)
    signing_input = f"{header}.{payload}"
    return f"{signing_input}.{encode(forge.sign(signing_input.encode()))}"


def _padded(forge: Forge, position: int) -> str:
    segments = list(forge.parts())
    segments[position] += "=" * (-len(segments[position]) % 4 or 4)
    if position < 2:
        segments[2] = encode(forge.sign(".".join(segments[:2]).encode()))
    return ".".join(segments)


def _inserted(forge: Forge, text: str, position: int) -> str:
    """Characters that lenient readers skip, within a segment."""
    segments = list(forge.parts())
    half = len(segments[position]) // 2
    segments[position] = segments[position][:half] + text + segments[position][half:]
    if position < 2:
        segments[2] = encode(forge.sign(".".join(segments[:2]).encode("utf-8", "surrogatepass")))
    return ".".join(segments)


def _standard_alphabet(forge: Forge) -> str:
    """+ and / in the signature's place of - and _."""
    while True:
        segments = forge.parts()
        if set(segments[2]) & set("-_"):
            return ".".join((*segments[:2], segments[2].replace("-", "+").replace("_", "/")))


_add(
    "tail-bits-signature",
    "malformed",
    lambda f: ".".join((*f.parts()[:2], _alter_tail(f.parts()[2]))),
)
_add(
    "tail-bits-signature-same-token",
    "malformed",
    lambda f: (lambda t: t[:-1] + ALPHABET[ALPHABET.index(t[-1]) ^ 1])(f.valid()),
)
_add("tail-bits-payload", "malformed", lambda f: _with_tail_bits(f, 1))
_add("tail-bits-header", "malformed", lambda f: _with_tail_bits(f, 0))
for _position, _segment in enumerate(("header", "payload", "signature")):
    _add(f"padding-{_segment}", "malformed", lambda f, p=_position: _padded(f, p))
    for _name, _text in (
        ("line-break", "\n"),
        ("space", " "),
        ("zero-byte", "\x00"),
        ("equals", "="),
        ("percent", "%3D"),
        ("accent", "é"),
        ("full-width", "Ａ"),
        ("soft-hyphen", "\u00ad"),
        ("surrogate", "\ud800"),
    ):
        _add(
            f"{_name}-in-{_segment}",
            "malformed",
            lambda f, p=_position, t=_text: _inserted(f, t, p),
        )
_add("standard-alphabet-signature", "malformed", _standard_alphabet)
_add("percent-encoded", "malformed", lambda f: f.valid().replace(".", "%2E"))

# --- shape --------------------------------------------------------------------------------------------------------

_add("empty", "malformed", lambda f: "")
_add("dots", "malformed", lambda f: "..")
_add("many-dots", "malformed", lambda f: "." * 2000)
_add("one-part", "malformed", lambda f: f.parts()[0])
_add("two-parts", "malformed", lambda f: ".".join(f.parts()[:2]))
_add("four-parts", "malformed", lambda f: f.valid() + ".AAAA")
_add("five-parts-jwe", "malformed", lambda f: ".".join(["AAAA"] * 5))
_add("empty-header", "malformed", lambda f: "." + ".".join(f.parts()[1:]))
_add("empty-payload", "malformed", lambda f: "{0}..{2}".format(*f.parts()))
_add("detached-payload", "malformed", lambda f: (lambda p: f"{p[0]}..{p[2]}")(f.parts()))
_add(
    "json-serialisation",
    "malformed",
    lambda f: json.dumps(dict(zip(("protected", "payload", "signature"), f.parts(), strict=True))),
)
_add("leading-space", "malformed", lambda f: " " + f.valid())
_add("trailing-line-break", "malformed", lambda f: f.valid() + "\n")
_add("trailing-dot", "malformed", lambda f: f.valid() + ".")
_add("with-scheme", "malformed", lambda f: "Bearer " + f.valid())
_add("quoted", "malformed", lambda f: f'"{f.valid()}"')
_add("twice-with-comma", "malformed", lambda f: f"{f.valid()},{f.valid()}")
_add("reversed", "malformed", lambda f: ".".join(reversed(f.parts())))
_add("header-as-payload", "algorithm", lambda f: (lambda p: f"{p[1]}.{p[0]}.{p[2]}")(f.parts()))
_add("other-case", "malformed", lambda f: f.valid().upper())
_add("not-a-token", "malformed", lambda f: "admin:admin")
_add("zero-bytes", "malformed", lambda f: "\x00" * 100)
_add("a-byte-too-long", "too_large", lambda f: "A" * 4097)
_add("8-megabytes", "too_large", lambda f: "A" * (8 << 20))
_add("8-megabytes-of-dots", "too_large", lambda f: "." * (8 << 20))
_add("8-megabytes-signed", "too_large", lambda f: f.with_claims(x="A" * (6 << 20)))
_add("long-claim-signed", "too_large", lambda f: f.with_claims(x="A" * 4096))
_add(
    "header-nested-deep-and-large", "too_large", lambda f: f.token(b"[" * 100_000 + b"]" * 100_000)
)
_add(
    "header-nested-2700-bytes-unsigned",
    "malformed",
    lambda f: f.token(b'{"a":' + b"[" * 1000 + b"]" * 1000 + b"}", sign=_empty),
)

# Whitespace is skipped by JSON readers, not by us where it stands in base64; within signed JSON it is the signer's
# affair, so no case for it: see `SOUND_BUT_ODD`.
SOUND_BUT_ODD: list[tuple[str, Make]] = [
    ("spaces-in-signed-json", lambda f: f.token(claims=json.dumps(f.claims(), indent=1).encode())),
    ("other-order-of-members", lambda f: f.token(dict(reversed(f.header().items())))),
    ("unknown-claim", lambda f: f.with_claims(scope="x", nested={"a": [1]})),
    ("nbf-past", lambda f: f.with_claims(nbf=f.now - 60)),
    ("iat-within-leeway", lambda f: f.with_claims(iat=f.now + 5)),
    ("a-day-long", lambda f: f.with_claims(exp=f.now + 86_400)),
    ("accents-in-sub", lambda f: f.with_claims(sub="Élodie Ngô")),
]


def fits_in_header(token: str) -> bool:
    """Whether an HTTP client will send the token as a bearer token at all."""
    return token.isascii() and token.isprintable() and token == token.strip() and bool(token)


# --- random mutations -------------------------------------------------------------------------------------------


def _flip_bit(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def _flip_in_text(token: str, others: list[str], rng: random.Random) -> str:
    return _flip_bit(token.encode(), rng).decode("latin-1")


def _flip_in_content(token: str, others: list[str], rng: random.Random) -> str:
    segments = token.split(".")
    place = rng.randrange(3)
    segments[place] = encode(_flip_bit(decode(segments[place]), rng))
    return ".".join(segments)


def _cut(token: str, others: list[str], rng: random.Random) -> str:
    start, end = sorted((rng.randrange(len(token) + 1), rng.randrange(len(token) + 1)))
    return rng.choice((token[:start], token[start:], token[:start] + token[end:]))


def _splice(token: str, others: list[str], rng: random.Random) -> str:
    place = rng.randrange(len(token))
    return token[:place] + rng.choice(others)[place + rng.choice((-1, 0, 0, 1)) :]


def _swap_segments(token: str, others: list[str], rng: random.Random) -> str:
    segments = [rng.choice([token, *others]).split(".")[place] for place in range(3)]
    if rng.random() < 0.3:
        rng.shuffle(segments)
    return ".".join(segments)


def _insert_text(token: str, others: list[str], rng: random.Random) -> str:
    place = rng.randrange(len(token) + 1)
    text = rng.choice([*ALPHABET, ".", "=", "\n", " ", "\x00", "é", "..", "AAAA", token])
    return token[:place] + text + token[place:]


def _replace_characters(token: str, others: list[str], rng: random.Random) -> str:
    characters = list(token)
    for _ in range(rng.randint(1, 4)):
        characters[rng.randrange(len(characters))] = rng.choice(ALPHABET)
    return "".join(characters)


def _change_claim(token: str, others: list[str], rng: random.Random) -> str:
    header, payload, signature = token.split(".")
    claims = json.loads(decode(payload))
    name = rng.choice(list(claims))
    values = [
        None,
        True,
        "admin",
        0,
        claims["exp"] + rng.randrange(1, 80_000),
        [],
        {},
        1.5,
        "x" * 50,
    ]
    if rng.random() < 0.2:
        del claims[name]
    else:
        claims[name] = rng.choice(values)
    return ".".join((header, encode(dump(claims)), signature))


def _change_header(token: str, others: list[str], rng: random.Random) -> str:
    header, payload, signature = token.split(".")
    members = json.loads(decode(header))
    members[rng.choice([*members, "crit", "jwk", "b64"])] = rng.choice(
        ["none", "HS256", "ES256", "at+jwt", "JWT", None, [], {}, "", 0]
    )
    return ".".join((encode(dump(members)), payload, rng.choice((signature, ""))))


_MUTATIONS = (
    _flip_in_text,
    _flip_in_content,
    _cut,
    _splice,
    _swap_segments,
    _insert_text,
    _replace_characters,
    _change_claim,
    _change_header,
)


def mutate_tokens(tokens: list[str], count: int, seed: int) -> Iterator[str]:
    """Gives `count` spoiled tokens, none of which is one of `tokens`; the same ones for the same seed and tokens."""
    rng = random.Random(seed)
    given = 0
    while given < count:
        token = rng.choice(tokens)
        others = [other for other in tokens if other != token]
        mutated = rng.choice(_MUTATIONS)(token, others, rng)
        if rng.random() < 0.2:
            mutated = (
                _flip_in_text(mutated, others, rng) if mutated.isascii() and mutated else mutated
            )
        if mutated not in tokens:
            given += 1
            yield mutated
