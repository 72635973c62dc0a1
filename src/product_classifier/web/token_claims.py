"""What a token must say, each claim by presence, type and value, once its signature is known to be right."""

import re
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from product_classifier.web.token_parts import TokenError, read_flat_json

Role = Literal["admin", "user"]

MAX_LIFETIME_SECONDS = 86_400
# Two hosts' clocks differ by a little, and a token is used right after it was made. `exp` has no such grace.
CLOCK_LEEWAY_SECONDS = 5

_ROLES: frozenset[str] = frozenset(get_args(Role))
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_MAX_SUBJECT = 255


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a verified token says.

    Attributes:
        session_id: The refresh family that the token came from.
        issued_at: Seconds since 1970, as is `expires_at`.
    """

    subject: str
    role: Role
    token_id: str
    session_id: str
    issued_at: int
    expires_at: int


def check_claims(payload: bytes, now: float, issuer: str, audience: str) -> TokenClaims:
    """Reads a payload whose signature is right and checks each claim's presence, type and value.

    Raises:
        TokenError: `malformed`, `claims`, `issuer`, `audience`, `expired` or `not_yet_valid`.
    """
    claims = read_flat_json(payload, "payload")
    if claims.get("iss") != issuer:
        raise TokenError("issuer", "The token is of another issuer.")
    if claims.get("aud") != audience:
        raise TokenError("audience", "The token is for another audience.")
    subject, role = claims.get("sub"), claims.get("role")
    if not isinstance(subject, str) or not _is_subject(subject):
        raise TokenError("claims", "The token's sub is missing or not allowed.")
    if not isinstance(role, str) or role not in _ROLES:
        raise TokenError("claims", "The token's role is missing or not allowed.")
    issued, expires = _check_times(claims, now)
    return TokenClaims(
        subject=subject,
        role=cast(Role, role),
        token_id=_read_id(claims, "jti"),
        session_id=_read_id(claims, "sid"),
        issued_at=issued,
        expires_at=expires,
    )


def _is_subject(text: str) -> bool:
    # isprintable is false for control characters, line breaks and lone surrogates.
    return 1 <= len(text) <= _MAX_SUBJECT and text.isprintable() and text == text.strip()


def _read_id(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise TokenError("claims", f"The token's {name} is missing or not allowed.")
    return value


def _read_time(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int or value < 0:  # a bool is an int to isinstance
        raise TokenError("claims", f"The token's {name} is missing or not a date.")
    return value


def _check_times(claims: dict[str, Any], now: float) -> tuple[int, int]:
    issued, expires = _read_time(claims, "iat"), _read_time(claims, "exp")
    starts = _read_time(claims, "nbf") if "nbf" in claims else issued
    if not issued < expires <= issued + MAX_LIFETIME_SECONDS:
        raise TokenError("claims", "The token's exp is not within a day after its iat.")
    if max(issued, starts) > now + CLOCK_LEEWAY_SECONDS:
        raise TokenError("not_yet_valid", "The token is not valid yet.")
    if now >= expires:
        raise TokenError("expired", "The token has expired.")
    return issued, expires
