"""What administrators, users and the command line do to accounts; each in one transaction with its audit entry."""

from product_classifier.auth.audit import AuditEvent, AuditLog, Origin
from product_classifier.auth.database import Database
from product_classifier.auth.sessions import SessionStore
from product_classifier.auth.users import Account, NewUser, UserChange, UserStore


class Administration:
    """Changes users. A new password or role, and disabling, end the sessions that began before."""

    def __init__(
        self, database: Database, users: UserStore, sessions: SessionStore, audit: AuditLog
    ) -> None:
        self._database = database
        self._users = users
        self._sessions = sessions
        self._audit = audit

    def list_users(self, limit: int, offset: int) -> tuple[list[Account], int]:
        """Gives a page of users, and how many there are."""
        with self._database.read() as db:
            return self._users.page(db, limit, offset)

    def find(self, name: str) -> Account:
        """Gives a user.

        Raises:
            UserNotFound: there is none.
        """
        with self._database.read() as db:
            return self._users.find(db, name)

    def create(self, user: NewUser, origin: Origin) -> Account:
        """Makes a user.

        Raises:
            UserNameRefused: the name is not allowed.
            UserExists: somebody has it.
        """
        with self._database.write() as db:
            account = self._users.create(db, user)
            self._audit.record(
                db, AuditEvent.USER_CREATED, origin, account.name, f"role {account.role}"
            )
            return account

    def change(
        self, name: str, change: UserChange, origin: Origin, keep_session: str | None = None
    ) -> Account:
        """Changes a user.

        Args:
            name: Whom.
            change: What.
            origin: Who does it.
            keep_session: The session in which users change their own password.

        Raises:
            UserNotFound: there is none.
            UserProtected: the change is not allowed.
        """
        with self._database.write() as db:
            before, after = self._users.change(db, name, change)
            for event, detail in _describe(before, after, change):
                self._audit.record(db, event, origin, after.name, detail)
            disabled = before.active and not after.active
            if change.password_hash or before.role != after.role or disabled:
                self._sessions.revoke_all(db, after.id, "user changed", keep=keep_session)
            return after

    def delete(self, name: str, origin: Origin) -> None:
        """Deletes a user.

        Raises:
            UserNotFound: there is none.
            UserProtected: it is the last active administrator.
        """
        with self._database.write() as db:
            account = self._users.delete(db, name)
            self._audit.record(db, AuditEvent.USER_DELETED, origin, account.name)

    def live_account(self, session_id: str) -> Account | None:
        """Gives the active user of a session that was not ended, or None."""
        with self._database.read() as db:
            return self._sessions.live_account(db, session_id)

    def read_audit(
        self, limit: int, before: int | None = None, event: str | None = None
    ) -> list[dict[str, object]]:
        """Gives entries of the audit trail, newest first."""
        with self._database.read() as db:
            return self._audit.read(db, limit, before, event)

    def record(self, event: AuditEvent, origin: Origin, detail: str | None = None) -> None:
        """Adds an entry that is about no user, as a rotation of keys."""
        with self._database.write() as db:
            self._audit.record(db, event, origin, None, detail)


def _describe(
    before: Account, after: Account, change: UserChange
) -> list[tuple[AuditEvent, str | None]]:
    events: list[tuple[AuditEvent, str | None]] = []
    if before.role != after.role:
        events.append((AuditEvent.ROLE_CHANGED, f"{before.role} to {after.role}"))
    if change.password_hash:
        events.append((AuditEvent.PASSWORD_CHANGED, None))
    if before.active != after.active:
        events.append((AuditEvent.USER_CHANGED, "enabled" if after.active else "disabled"))
    if before.full_name != after.full_name:
        events.append((AuditEvent.USER_CHANGED, "full name"))
    return events
