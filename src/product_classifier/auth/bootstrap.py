"""The users that settings make: the first administrator, the test user, the machine account.

- ADMIN_USER is made while there is no administrator; afterwards ADMIN_PASSWORD is neither needed nor read.
- TEST_USER is made where it is missing. To be rid of that user, take it out of the settings too.
- SMOKE_USER is an ordinary user whose password follows SMOKE_PASSWORD at every start. No password: no such account.
"""

import logging
from itertools import combinations

from sqlalchemy.orm import Session

from product_classifier.auth.audit import AuditEvent, AuditLog, Origin
from product_classifier.auth.database import Database
from product_classifier.auth.errors import PasswordRefused, UserExists, UserNameRefused
from product_classifier.auth.passwords import ROUNDS, check_new_password, hash_password, matches
from product_classifier.auth.sessions import SessionStore
from product_classifier.auth.users import NewUser, UserChange, UserStore, is_user_name, name_key
from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import AuthSettings

logger = logging.getLogger(__name__)

_START = Origin(actor="start")


def check_settings(settings: AuthSettings) -> None:
    """Checks what can be checked without the database.

    Raises:
        ConfigurationError: a setting can't be used; the message names it and shows no secret.
    """
    problems = settings.check_auth()
    names = {"ADMIN_USER": settings.admin_user, "SMOKE_USER": settings.smoke_user}
    if settings.test_user:
        names["TEST_USER"] = settings.test_user
    problems += [
        f"{setting} must have 1 to 64 letters, digits, dots, dashes, underscores or @, and not be 'me'."
        for setting, name in names.items()
        if not is_user_name(name)
    ]
    if settings.smoke_password is None:
        del names["SMOKE_USER"]
    else:
        problems += _check_machine(settings.smoke_password.get_secret_value())
    problems += [
        f"{one} and {other} name the same user: each needs a name of its own."
        for one, other in combinations(names, 2)
        if name_key(names[one]) == name_key(names[other])
    ]
    if problems:
        raise ConfigurationError(" ".join(problems))


def _check_machine(password: str) -> list[str]:
    try:
        check_new_password(password, "SMOKE_PASSWORD")
    except PasswordRefused as error:
        return [str(error)]
    return []


class FirstUsers:
    """Makes the users that settings ask for. Call it under `migrate.starting`."""

    def __init__(
        self,
        settings: AuthSettings,
        users: UserStore,
        sessions: SessionStore,
        audit: AuditLog,
        rounds: int = ROUNDS,
    ) -> None:
        self._settings = settings
        self._users = users
        self._sessions = sessions
        self._audit = audit
        self._rounds = rounds

    def make(self, database: Database) -> None:
        """Makes whom settings ask for.

        Raises:
            ConfigurationError: a name is taken by another kind of user, or a password is missing or not allowed.
        """
        with database.write() as db:
            self._make_admin(db)
            self._make_test_user(db)
            self._follow_machine(db)

    def _make_admin(self, db: Session) -> None:
        if self._users.has_admin(db):
            return
        secret = self._settings.admin_password
        if secret is None:
            raise ConfigurationError(
                "ADMIN_PASSWORD is missing: the first start makes the administrator "
                f"{self._settings.admin_user} with it."
            )
        password = secret.get_secret_value()
        check_new_password(password, "ADMIN_PASSWORD")
        self._create(
            db,
            "ADMIN_USER",
            NewUser(self._settings.admin_user, hash_password(password, self._rounds), role="admin"),
        )

    def _make_test_user(self, db: Session) -> None:
        name, secret = self._settings.test_user, self._settings.test_user_password
        if not name or secret is None or self._users.credentials(db, name) is not None:
            return
        password = secret.get_secret_value()
        check_new_password(password, "TEST_USER_PASSWORD")
        self._create(
            db,
            "TEST_USER",
            NewUser(
                name,
                hash_password(password, self._rounds),
                full_name=(self._settings.test_user_name or "")[:200] or None,
            ),
        )

    def _create(self, db: Session, setting: str, user: NewUser) -> None:
        try:
            account = self._users.create(db, user)
        except (UserExists, UserNameRefused) as error:
            raise ConfigurationError(
                f"{setting} can't be made: {error} Choose another name."
            ) from None
        self._audit.record(
            db, AuditEvent.USER_CREATED, _START, account.name, f"role {account.role}"
        )

    def _follow_machine(self, db: Session) -> None:
        secret = self._settings.smoke_password
        wanted = name_key(self._settings.smoke_user) if secret is not None else None
        for account in self._users.machines(db):
            if name_key(account.name) != wanted and account.active:
                self._users.change(db, account.name, UserChange(active=False))
                self._sessions.revoke_all(db, account.id, "user changed")
                self._audit.record(db, AuditEvent.USER_CHANGED, _START, account.name, "disabled")
        if secret is not None:
            self._follow_password(db, secret.get_secret_value())

    def _follow_password(self, db: Session, password: str) -> None:
        name = self._settings.smoke_user
        known = self._users.credentials(db, name)
        if known is None:
            password_hash = hash_password(password, self._rounds)
            self._create(db, "SMOKE_USER", NewUser(name, password_hash, machine=True))
            return
        account, password_hash = known
        if not account.machine:
            raise ConfigurationError(
                f"SMOKE_USER names the user {account.name}, who is a person's account: its password must not "
                "follow SMOKE_PASSWORD. Choose another name."
            )
        if not account.active:
            self._users.change(db, name, UserChange(active=True))
            self._audit.record(db, AuditEvent.USER_CHANGED, _START, account.name, "enabled")
        if not matches(password, password_hash):
            change = UserChange(password_hash=hash_password(password, self._rounds))
            self._users.change(db, name, change)
            self._sessions.revoke_all(db, account.id, "user changed")
            self._audit.record(db, AuditEvent.PASSWORD_CHANGED, _START, account.name)
