"""Signing and verifying tokens, apart from attacks: those are in test_web_tokens_forged.py."""

import json
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from forged_tokens import P256_ORDER, decode, encode
from product_classifier.core.errors import ConfigurationError
from product_classifier.web.tokens import (
    SigningKey,
    TokenClaims,
    TokenError,
    TokenSigner,
    TokenVerifier,
    VerificationKeys,
)

NOW = 1_790_000_000
SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate(NOW)


def issue(key: SigningKey | str, lifetime_seconds: int = 1800, now: float = NOW) -> str:
    return TokenSigner(key, lifetime_seconds=lifetime_seconds).issue("alice", "user", "s-1", now)


@pytest.mark.parametrize("family", ["ES256", "HS256"])
def test_a_token_says_what_was_signed(key: SigningKey, family: str) -> None:
    signing, verifying = (key, VerificationKeys.of(key)) if family == "ES256" else (SECRET, SECRET)
    token = TokenSigner(signing, lifetime_seconds=1800).issue("Élodie", "admin", "s-1", NOW + 0.9)
    claims = TokenVerifier(verifying).verify(token, NOW + 1)
    assert claims == TokenClaims("Élodie", "admin", claims.token_id, "s-1", NOW, NOW + 1800)
    assert len(claims.token_id) >= 22  # 128 bits


def test_the_header_and_the_claims_are_exactly_those_promised(key: SigningKey) -> None:
    header, payload, _ = issue(key).split(".")
    assert json.loads(decode(header)) == {"alg": "ES256", "kid": key.kid, "typ": "at+jwt"}
    assert set(json.loads(decode(payload))) == {
        "iss", "aud", "sub", "role", "iat", "exp", "jti", "sid",
    }  # fmt: skip
    header, _, _ = issue(SECRET).split(".")
    assert json.loads(decode(header)) == {"alg": "HS256", "typ": "at+jwt"}


def test_no_two_tokens_are_alike(key: SigningKey) -> None:
    assert len({issue(SECRET) for _ in range(50)}) == 50
    assert len({issue(key) for _ in range(50)}) == 50


def test_the_clock_is_used_where_no_time_is_given(key: SigningKey) -> None:
    token = TokenSigner(key, lifetime_seconds=600).issue("alice", "user", "s-1")
    claims = TokenVerifier(VerificationKeys.of(key)).verify(token)
    assert abs(claims.issued_at - time.time()) < 60


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        pytest.param(NOW - 6, "not_yet_valid", id="six-seconds-early"),
        pytest.param(NOW - 5, None, id="clock-five-seconds-behind"),
        pytest.param(NOW, None, id="at-once"),
        pytest.param(NOW + 1799.9, None, id="last-moment"),
        pytest.param(NOW + 1800, "expired", id="no-grace-at-the-end"),
    ],
)
def test_a_token_is_valid_in_its_time_only(key: SigningKey, moment: float, reason: str) -> None:
    verifier = TokenVerifier(VerificationKeys.of(key))
    if reason is None:
        assert verifier.verify(issue(key), moment).subject == "alice"
    else:
        with pytest.raises(TokenError) as refused:
            verifier.verify(issue(key), moment)
        assert refused.value.reason == reason


def test_every_signature_is_the_one_form_that_is_accepted(key: SigningKey) -> None:
    """ECDSA has two; about half of what a library signs is the other one."""
    verifier = TokenVerifier(VerificationKeys.of(key))
    for _ in range(64):
        token = issue(key)
        verifier.verify(token, NOW)
        head, _, tail = token.rpartition(".")
        signature = decode(tail)
        assert int.from_bytes(signature[32:], "big") <= P256_ORDER // 2


def test_a_verifier_of_one_family_never_takes_the_other(key: SigningKey) -> None:
    for verifier, token in (
        (TokenVerifier(SECRET), issue(key)),
        (TokenVerifier(VerificationKeys.of(key)), issue(SECRET)),
    ):
        with pytest.raises(TokenError) as refused:
            verifier.verify(token, NOW)
        assert refused.value.reason == "algorithm"


def test_another_secret_or_key_is_refused(key: SigningKey) -> None:
    with pytest.raises(TokenError) as refused:
        TokenVerifier("another secret of more than 32 bytes").verify(issue(SECRET), NOW)
    assert refused.value.reason == "signature"
    with pytest.raises(TokenError) as refused:
        TokenVerifier(VerificationKeys.of(SigningKey.generate())).verify(issue(key), NOW)
    assert refused.value.reason == "key_unknown"


def test_the_kid_picks_the_key(key: SigningKey) -> None:
    other = SigningKey.generate()
    verifier = TokenVerifier(VerificationKeys.of(other, key))
    for signing in (key, other):
        assert verifier.verify(issue(signing), NOW).subject == "alice"
    swapped = VerificationKeys({key.kid: other.public_key, other.kid: key.public_key})
    with pytest.raises(TokenError) as refused:
        TokenVerifier(swapped).verify(issue(key), NOW)
    assert refused.value.reason == "signature"


def test_another_audience_or_issuer_is_another_realm(key: SigningKey) -> None:
    keys = VerificationKeys.of(key)
    signer = TokenSigner(key, issuer="i", audience="a", lifetime_seconds=60)
    token = signer.issue("alice", "user", "s-1", NOW)
    assert TokenVerifier(keys, issuer="i", audience="a").verify(token, NOW).subject == "alice"
    for expected, verifier in (
        ("issuer", TokenVerifier(keys, audience="a")),
        ("audience", TokenVerifier(keys, issuer="i")),
    ):
        with pytest.raises(TokenError) as refused:
            verifier.verify(token, NOW)
        assert refused.value.reason == expected


@pytest.mark.parametrize(
    ("subject", "role", "session"),
    [("", "user", "s"), ("a" * 256, "user", "s"), ("a\n", "user", "s"), ("a", "root", "s"),
     ("a", "user", ""), ("a", "user", "s/.."), ("\ud800", "user", "s"), ("{" * 20, "user", "s")],
    ids=["no-subject", "long", "line-break", "role", "no-session", "session", "surrogate", "nested"],
)  # fmt: skip
def test_what_no_verifier_would_take_is_not_signed(
    key: SigningKey, subject: str, role: str, session: str
) -> None:
    with pytest.raises(TokenError):
        TokenSigner(key, lifetime_seconds=60).issue(subject, role, session, NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize("lifetime", [0, -1, 86_401])
def test_a_lifetime_beyond_a_day_is_refused(key: SigningKey, lifetime: int) -> None:
    with pytest.raises(ConfigurationError, match="86400"):
        TokenSigner(key, lifetime_seconds=lifetime)


def _public_texts() -> dict[str, str]:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    ssh = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    jwk = json.dumps(VerificationKeys.of(SigningKey.generate()).to_jwks()["keys"][0])
    return {"pem": pem.decode(), "ssh": ssh.decode(), "jwk": jwk}


@pytest.mark.parametrize("form", ["pem", "ssh", "jwk"])
def test_a_published_key_is_no_secret(form: str) -> None:
    text = _public_texts()[form]
    for build in (TokenVerifier, lambda s: TokenSigner(s, lifetime_seconds=60)):
        with pytest.raises(ConfigurationError, match="SECRET_KEY") as refused:
            build(text)
        assert text not in str(refused.value)


@pytest.mark.parametrize("secret", ["", "a" * 31, "é" * 15])
def test_a_short_secret_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="at least 32 bytes") as refused:
        TokenVerifier(secret)
    assert not secret or secret not in str(refused.value)


def test_a_secret_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="UTF-8"):
        TokenVerifier("\udcff" * 40)


def test_a_key_survives_its_text_and_shows_itself_by_its_kid_only(key: SigningKey) -> None:
    again = SigningKey.from_pem(key.to_pem(), NOW)
    assert again.kid == key.kid
    assert "private" not in repr(again)
    assert TokenVerifier(VerificationKeys.of(key)).verify(issue(again), NOW).subject == "alice"


def test_only_a_plain_p256_key_is_a_signing_key(key: SigningKey) -> None:
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    texts = [
        ec.generate_private_key(ec.SECP384R1()).private_bytes(*plain, serialization.NoEncryption()),
        rsa.generate_private_key(65537, 2048).private_bytes(*plain, serialization.NoEncryption()),
        key.private_key.private_bytes(*plain, serialization.BestAvailableEncryption(b"word")),
        b"rubbish",
    ]
    for text in texts:
        with pytest.raises(ConfigurationError, match="signing key"):
            SigningKey.from_pem(text.decode(), NOW)


def test_a_key_set_survives_publishing(key: SigningKey) -> None:
    other = SigningKey.generate()
    document = json.loads(json.dumps(VerificationKeys.of(key, other).to_jwks()))
    assert [set(entry) for entry in document["keys"]] == [
        {"kty", "crv", "x", "y", "kid", "alg", "use"}
    ] * 2
    keys = VerificationKeys.from_jwks(document)
    assert list(keys) == [key.kid, other.kid]
    assert keys.to_jwks() == document
    assert TokenVerifier(keys).verify(issue(key), NOW).subject == "alice"


def _bad_key_sets() -> dict[str, object]:
    good = VerificationKeys.of(SigningKey.generate()).to_jwks()["keys"][0]
    bad: dict[str, object] = {
        name: {"keys": [good | change]}
        for name, change in {
            "private": {"d": "AAAA"},
            "symmetric": {"kty": "oct", "k": "AAAA"},
            "rsa": {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
            "curve": {"crv": "P-384"},
            "encryption": {"use": "enc"},
            "signing-operation": {"key_ops": ["sign"]},
            "algorithm": {"alg": "HS256"},
            "no-kid": {"kid": None},
            "odd-kid": {"kid": "../x"},
            "kid-line-break": {"kid": "abc\n"},
            "coordinate-number": {"x": 5},
            "coordinate-short": {"x": "AAAA"},
            "coordinate-leading-zero": {"x": encode(b"\0" + decode(good["x"]))},
            "coordinate-padded": {"x": good["x"] + "="},
            "coordinate-accent": {"x": "é" * 43},
            "not-on-the-curve": {"x": good["y"], "y": good["x"]},
            "zero": {"x": "A" * 43, "y": "A" * 43},
        }.items()
    }
    return bad | {
        "none": None,
        "list": [good],
        "no-list": {"keys": good},
        "empty": {"keys": []},
        "too-many": {"keys": [good | {"kid": str(n)} for n in range(17)]},
        "twice": {"keys": [good, good]},
        "text-inside": {"keys": ["key"]},
        "one-bad-of-two": {"keys": [good, good | {"kid": "b", "crv": "P-384"}]},
    }


@pytest.mark.parametrize("name", list(_bad_key_sets()))
def test_a_key_set_is_taken_whole_or_not_at_all(name: str) -> None:
    with pytest.raises(ConfigurationError, match="JWK"):
        VerificationKeys.from_jwks(_bad_key_sets()[name])
