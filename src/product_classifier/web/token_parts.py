"""The strict reading of a compact token: nothing that has two readings gets past this module.

Everything here runs on bytes that nobody has vouched for yet, so each step is bounded before it is taken: the length
first, then the alphabet, then the nesting, then the JSON. What comes out is flat: names with texts and whole numbers.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

from product_classifier.core.errors import ProductClassifierError

MAX_TOKEN_BYTES = 4096  # ours are 450 to 900 bytes; proxies and servers take 8 KB of headers in all

TokenReason = Literal[
    "malformed",
    "too_large",
    "algorithm",
    "key_unknown",
    "signature",
    "expired",
    "not_yet_valid",
    "audience",
    "issuer",
    "type",
    "claims",
    "revoked",
    "missing",
    "unavailable",
]
TOKEN_REASONS: frozenset[str] = frozenset(get_args(TokenReason))

# A text may hold brackets, so they can't be forbidden; counted, they bound the nesting that the JSON reader can meet.
_MAX_BRACKETS = 16
_MAX_DIGITS = 15  # exact in every JSON reader, and beyond any date
_SEGMENT = re.compile(rb"[A-Za-z0-9_-]+")


class TokenError(ProductClassifierError):
    """A token is not accepted.

    Attributes:
        reason: One of `TOKEN_REASONS`: fit for a metric's label and for `error_description`.
    """

    def __init__(self, reason: TokenReason, message: str) -> None:
        super().__init__(message)
        self.reason: TokenReason = reason


@dataclass(frozen=True, slots=True)
class TokenParts:
    """A token taken apart, not yet verified."""

    header: dict[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes


def encode_segment(data: bytes) -> bytes:
    """Encodes bytes as base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decode_segment(segment: bytes, what: str) -> bytes:
    """Decodes base64url and takes only the one spelling that `encode_segment` gives.

    Raises:
        TokenError: other characters, padding, or bits behind the last byte that are not zero.
    """
    if not _SEGMENT.fullmatch(segment):
        raise TokenError("malformed", f"The token's {what} is not base64url without padding.")
    try:
        data = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except binascii.Error:
        raise TokenError("malformed", f"The token's {what} is not base64url.") from None
    if encode_segment(data) != segment:
        raise TokenError("malformed", f"The token's {what} has bits behind its last byte.")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name comes twice")
    return result


def _refuse_number(text: str) -> NoReturn:
    raise ValueError("a number is not whole")


def _whole_number(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("a number has too many digits")
    return int(text)


def read_flat_json(data: bytes, what: str) -> dict[str, Any]:
    """Reads one JSON object whose numbers are whole; every name comes once.

    Raises:
        TokenError: anything else, deep nesting included.
    """
    if data.count(b"{") + data.count(b"[") > _MAX_BRACKETS:
        raise TokenError("malformed", f"The token's {what} is nested.")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            parse_int=_whole_number,
        )
    except ValueError:  # not UTF-8, not JSON, or one of the hooks
        raise TokenError("malformed", f"The token's {what} is not plain JSON.") from None
    if not isinstance(value, dict):
        raise TokenError("malformed", f"The token's {what} is not a JSON object.")
    return value


def split_token(token: object) -> TokenParts:
    """Takes a compact token apart.

    Raises:
        TokenError: `too_large`, or `malformed` in any way.
    """
    if not isinstance(token, str):
        raise TokenError("malformed", "The token is not text.")
    if len(token) > MAX_TOKEN_BYTES:  # before anything reads it: characters are bytes or more
        raise TokenError("too_large", f"The token has more than {MAX_TOKEN_BYTES} bytes.")
    if not token.isascii():
        raise TokenError("malformed", "The token has characters that are not ASCII.")
    segments = token.encode("ascii").split(b".")
    if len(segments) != 3:
        raise TokenError("malformed", "The token does not have three parts.")
    header, payload, signature = segments
    return TokenParts(
        header=read_flat_json(decode_segment(header, "header"), "header"),
        payload=decode_segment(payload, "payload"),
        signing_input=header + b"." + payload,
        signature=decode_segment(signature, "signature"),
    )
