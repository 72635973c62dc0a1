"""Sessions: one per sign-in, with a chain ("family") of refresh tokens of which only the newest is good.

A refresh token is 128 random bits that name its family and 256 that are new at each rotation; the table holds their
SHA-256 only. Presenting an older token of a family means that two parties hold it, so the whole family ends. There is
no grace for a double submit: a thief and a hurried client look the same, and signing in again is cheap.

The token's session id (`sid`) is not the family's secret part: who has seen an access token can't end its session.
"""

import base64
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, delete, or_, select, update
from sqlalchemy.orm import Session

from product_classifier.auth.errors import RefreshRefused, SignInRefused
from product_classifier.auth.tables import SessionRow, UserRow
from product_classifier.auth.users import Account
from product_classifier.core.files import sha256_bytes

FAMILY_BYTES = 16
SECRET_BYTES = 32
KEEP_REVOKED_SECONDS = 86_400
# Machine clients sign in once per call: their oldest sessions end, so that the table can't grow without end.
MAX_SESSIONS_PER_USER = 500


@dataclass(frozen=True)
class Started:
    """A session with its newest refresh token."""

    session_id: str
    refresh_token: str
    account: Account


def _new_token(family: bytes) -> str:
    raw = family + secrets.token_bytes(SECRET_BYTES)
    return base64.urlsafe_b64encode(raw).decode()  # 48 bytes: no padding


def _split(token: str) -> tuple[str, str] | None:
    """Gives the hashes of the family and of the whole token, or None for what is no refresh token."""
    if len(token) != 4 * (FAMILY_BYTES + SECRET_BYTES) // 3:
        return None
    try:
        raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except ValueError:
        return None
    if (
        base64.urlsafe_b64encode(raw).decode() != token
    ):  # "+" is read as "-" too: one text per token
        return None
    return sha256_bytes(raw[:FAMILY_BYTES]), sha256_bytes(raw)


class SessionStore:
    """Starts, rotates and ends sessions, inside the caller's transaction."""

    def __init__(self, lifetime_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self.lifetime_seconds = lifetime_seconds
        self._clock = clock

    def start(self, db: Session, account: Account, password_hash: str) -> Started:
        """Starts a session for a user whose password was just verified.

        Raises:
            SignInRefused: meanwhile the user was disabled, deleted or given another password.
        """
        row = db.scalar(
            select(UserRow)
            .where(
                UserRow.id == account.id,
                UserRow.active,
                UserRow.password_hash == password_hash,
            )
            .with_for_update()
        )
        if row is None:
            raise SignInRefused("User name or password is wrong.")
        self._end_surplus(db, row.id)
        family = secrets.token_bytes(FAMILY_BYTES)
        token, now = _new_token(family), self._clock()
        hashes = cast("tuple[str, str]", _split(token))
        session = SessionRow(
            id=secrets.token_hex(16),
            user_id=row.id,
            family_hash=hashes[0],
            token_hash=hashes[1],
            rotations=0,
            created_at=now,
            expires_at=now + self.lifetime_seconds,
        )
        db.add(session)
        return Started(session.id, token, Account.of(row))

    def rotate(self, db: Session, token: str) -> Started | RefreshRefused:
        """Takes a refresh token and gives the next one, to exactly one of any number of callers.

        Returns:
            The session, or why not. A refusal is returned, not raised: the transaction that ends a family whose
            token was used twice has to be committed.
        """
        hashes = _split(token)
        if hashes is None:
            return RefreshRefused("unknown")
        now = self._clock()
        family = base64.urlsafe_b64decode(token)[:FAMILY_BYTES]
        following = _new_token(family)
        changed = _execute(
            db,
            update(SessionRow)
            .where(
                SessionRow.family_hash == hashes[0],
                SessionRow.token_hash == hashes[1],
                SessionRow.revoked_at.is_(None),
                SessionRow.expires_at > now,
            )
            .values(
                token_hash=cast("tuple[str, str]", _split(following))[1],
                rotations=SessionRow.rotations + 1,
                expires_at=now + self.lifetime_seconds,
            ),
        )
        row = db.execute(
            select(SessionRow, UserRow)
            .join(UserRow, UserRow.id == SessionRow.user_id)
            .where(SessionRow.family_hash == hashes[0])
        ).first()
        if row is None:
            return RefreshRefused("unknown")
        session, user = row
        if changed and user.active:
            return Started(session.id, following, Account.of(user))
        return self._refuse(db, session, changed, now)

    def _refuse(self, db: Session, session: SessionRow, changed: int, now: float) -> RefreshRefused:
        if changed:
            self.revoke(db, session.id, "disabled")
            return RefreshRefused("disabled")
        if session.revoked_at is not None:
            return RefreshRefused("revoked")
        if session.expires_at <= now:
            return RefreshRefused("expired")
        self.revoke(db, session.id, "reused")
        return RefreshRefused("reused")

    def live_account(self, db: Session, session_id: str) -> Account | None:
        """Gives the active user of a session that was not ended, or None."""
        row = db.scalar(
            select(UserRow)
            .join(SessionRow, SessionRow.user_id == UserRow.id)
            .where(
                SessionRow.id == session_id,
                SessionRow.revoked_at.is_(None),
                SessionRow.expires_at > self._clock(),
                UserRow.active,
            )
        )
        return None if row is None else Account.of(row)

    def owner(self, db: Session, token: str) -> str | None:
        """Names the user of a refresh token's family, for the audit trail."""
        hashes = _split(token)
        return hashes and db.scalar(
            select(UserRow.name)
            .join(SessionRow, SessionRow.user_id == UserRow.id)
            .where(SessionRow.family_hash == hashes[0])
        )

    def revoke(self, db: Session, session_id: str, reason: str) -> None:
        """Ends a session."""
        db.execute(
            update(SessionRow)
            .where(SessionRow.id == session_id, SessionRow.revoked_at.is_(None))
            .values(revoked_at=self._clock(), revoked_for=reason)
        )

    def revoke_all(self, db: Session, user_id: int, reason: str, keep: str | None = None) -> None:
        """Ends all sessions of a user but the one to `keep`."""
        query = update(SessionRow).where(
            SessionRow.user_id == user_id, SessionRow.revoked_at.is_(None)
        )
        if keep is not None:
            query = query.where(SessionRow.id != keep)
        db.execute(query.values(revoked_at=self._clock(), revoked_for=reason))

    def clean_up(self, db: Session) -> int:
        """Removes sessions that have ended for good, and says how many."""
        now = self._clock()
        return _execute(
            db,
            delete(SessionRow).where(
                or_(
                    SessionRow.expires_at <= now,
                    SessionRow.revoked_at < now - KEEP_REVOKED_SECONDS,
                )
            ),
        )

    def _end_surplus(self, db: Session, user_id: int) -> None:
        surplus = (
            select(SessionRow.id)
            .where(SessionRow.user_id == user_id)
            .order_by(SessionRow.created_at.desc(), SessionRow.id)
            .offset(MAX_SESSIONS_PER_USER - 1)
        )
        ids = db.scalars(surplus).all()
        if ids:
            db.execute(delete(SessionRow).where(SessionRow.id.in_(ids)))


def _execute(db: Session, statement: Any) -> int:
    """Runs a change and says how many rows it touched."""
    result = cast("CursorResult[Any]", db.execute(statement))
    return result.rowcount
