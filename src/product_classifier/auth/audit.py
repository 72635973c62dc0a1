"""The audit trail: who did what to which user, session or key, from where. Never a password, token or key.

An entry is a row, in the same transaction as what it tells of, and a JSON log line. What a flood could repeat at
will (attempts while locked out) is only logged, so nobody can fill the table.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from product_classifier.auth.tables import AuditRow

logger = logging.getLogger("product_classifier.audit")

KEEP_SECONDS = 400 * 86_400
KEEP_ROWS = 200_000
# Anybody can cause these: they have a share of their own, so that they can't push the others out of the table.
KEEP_ANONYMOUS_ROWS = 50_000


class AuditEvent(StrEnum):
    """What is recorded."""

    LOGIN = "login"
    LOGIN_FAILED = "login_failed"
    LOCKED_OUT = "locked_out"
    REFRESH_REUSED = "refresh_reused"
    LOGOUT = "logout"
    USER_CREATED = "user_created"
    USER_CHANGED = "user_changed"
    USER_DELETED = "user_deleted"
    ROLE_CHANGED = "role_changed"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - the name of an event
    KEYS_ROTATED = "keys_rotated"


_ANONYMOUS = (AuditEvent.LOGIN_FAILED.value, AuditEvent.LOCKED_OUT.value)


@dataclass(frozen=True)
class Origin:
    """Who asks, and from where.

    Attributes:
        actor: Name of the signed-in user, or what acts without one, as "start" or "command line".
        address: The client's address.
        request_id: The request's id.
    """

    actor: str | None = None
    address: str | None = None
    request_id: str | None = None


def _clip(text: str | None, length: int) -> str | None:
    return text[:length] if text else None


class AuditLog:
    """Writes and reads the trail."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    def record(
        self,
        session: Session,
        event: AuditEvent,
        origin: Origin,
        subject: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Adds an entry to a transaction, and logs it.

        Args:
            session: The transaction that does what is recorded.
            event: What happened.
            origin: Who did it.
            subject: Name of the user it happened to; None for a name that no user has (it may be a mistyped password).
            detail: More, without secrets; at most 200 characters.
        """
        row = AuditRow(
            at=self._clock(),
            event=event.value,
            actor=_clip(origin.actor, 64),
            subject=_clip(subject, 64),
            address=_clip(origin.address, 64),
            request_id=_clip(origin.request_id, 64),
            detail=_clip(detail, 200),
        )
        session.add(row)
        self.log(event, origin, subject, detail)

    def log(
        self,
        event: AuditEvent,
        origin: Origin,
        subject: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Writes the log line alone."""
        logger.info(
            "%s",
            event.value,
            extra={
                "event": event.value,
                "actor": origin.actor,
                "subject": subject,
                "address": origin.address,
                "request_id": origin.request_id,
                "detail": detail,
            },
        )

    def read(
        self, session: Session, limit: int, before: int | None = None, event: str | None = None
    ) -> list[dict[str, Any]]:
        """Gives entries, newest first.

        Args:
            session: A transaction.
            limit: At most so many.
            before: Only entries with a smaller id: the last id of the page before.
            event: Only entries of this kind.
        """
        query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
        if before is not None:
            query = query.where(AuditRow.id < before)
        if event is not None:
            query = query.where(AuditRow.event == event)
        columns = AuditRow.__table__.columns.keys()
        return [
            {name: getattr(row, name) for name in columns} for row in session.scalars(query).all()
        ]

    def clean_up(self, session: Session) -> None:
        """Removes entries that are too old or too many."""
        anonymous = AuditRow.event.in_(_ANONYMOUS)
        session.execute(delete(AuditRow).where(AuditRow.at < self._clock() - KEEP_SECONDS))
        for kind, keep in ((anonymous, KEEP_ANONYMOUS_ROWS), (~anonymous, KEEP_ROWS)):
            last = session.scalar(
                select(AuditRow.id).where(kind).order_by(AuditRow.id.desc()).offset(keep).limit(1)
            )
            if last is not None:
                session.execute(delete(AuditRow).where(kind, AuditRow.id <= last))
