"""Users: finding, making, changing and deleting them, inside the caller's transaction."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from product_classifier.auth.errors import (
    UserExists,
    UserNameRefused,
    UserNotFound,
    UserProtected,
)
from product_classifier.auth.tables import UserRow

NAME_PATTERN = r"^[A-Za-z0-9._@-]{1,64}$"
_NAME = re.compile(NAME_PATTERN)

# GET /users/me is the caller: a user of this name could not be asked for.
_RESERVED = frozenset({"me"})

Role = Literal["admin", "user"]


@dataclass(frozen=True)
class Account:
    """A user as others may see it: no password hash."""

    id: int
    name: str
    full_name: str | None
    role: Role
    active: bool
    machine: bool
    created_at: float
    changed_at: float

    @classmethod
    def of(cls, row: UserRow) -> "Account":
        """Copies a row, so that it outlives its transaction."""
        return cls(
            id=row.id,
            name=row.name,
            full_name=row.full_name,
            role="admin" if row.role == "admin" else "user",
            active=row.active,
            machine=row.machine,
            created_at=row.created_at,
            changed_at=row.changed_at,
        )


@dataclass(frozen=True)
class NewUser:
    """What a user is made of."""

    name: str
    password_hash: str
    role: Role = "user"
    full_name: str | None = None
    machine: bool = False

    def __repr__(self) -> str:
        return f"NewUser(name={self.name!r}, role={self.role!r})"


@dataclass(frozen=True)
class UserChange:
    """What to change; None leaves a value as it is."""

    full_name: str | None = None
    role: Role | None = None
    active: bool | None = None
    password_hash: str | None = None

    def __repr__(self) -> str:
        return f"UserChange(role={self.role!r}, active={self.active!r})"


def is_user_name(name: str) -> bool:
    """Says whether a user could have this name."""
    return _NAME.fullmatch(name) is not None and name_key(name) not in _RESERVED


def name_key(name: str) -> str:
    """Gives what two names must not share."""
    return name.lower()


class UserStore:
    """The users, as rows."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    def find(self, db: Session, name: str) -> Account:
        """Gives a user by name, in whatever case.

        Raises:
            UserNotFound: nobody has the name.
        """
        return Account.of(self._row(db, name))

    def credentials(self, db: Session, name: str) -> tuple[Account, str] | None:
        """Gives a user with its password hash, or None."""
        row = self._find(db, name)
        return None if row is None else (Account.of(row), row.password_hash)

    def page(self, db: Session, limit: int, offset: int = 0) -> tuple[list[Account], int]:
        """Gives a page of users by name, and how many there are in all."""
        query = select(UserRow).order_by(UserRow.name_key).limit(limit).offset(offset)
        total = db.scalar(select(func.count()).select_from(UserRow)) or 0
        return [Account.of(row) for row in db.scalars(query)], total

    def has_admin(self, db: Session) -> bool:
        """Says whether there is an administrator, active or not."""
        return db.scalar(select(UserRow.id).where(UserRow.role == "admin").limit(1)) is not None

    def machines(self, db: Session) -> list[Account]:
        """Gives the accounts that settings govern."""
        return [Account.of(row) for row in db.scalars(select(UserRow).where(UserRow.machine))]

    def create(self, db: Session, user: NewUser) -> Account:
        """Makes a user.

        Raises:
            UserNameRefused: the name is not allowed.
            UserExists: somebody has it.
        """
        if not is_user_name(user.name):
            raise UserNameRefused(
                "A user name has 1 to 64 letters, digits, dots, dashes, underscores or @, and is not 'me'. "
                f"Received: {len(user.name)} characters."
            )
        now = self._clock()
        row = UserRow(
            name=user.name,
            name_key=name_key(user.name),
            full_name=user.full_name,
            password_hash=user.password_hash,
            role=user.role,
            active=True,
            machine=user.machine,
            created_at=now,
            changed_at=now,
        )
        try:
            with db.begin_nested():
                db.add(row)
        except IntegrityError:
            raise UserExists(f"There is a user {user.name} already.") from None
        return Account.of(row)

    def change(self, db: Session, name: str, change: UserChange) -> tuple[Account, Account]:
        """Changes a user, and gives it as it was and as it is.

        Raises:
            UserNotFound: nobody has the name.
            UserProtected: it is the last active administrator, or its role is governed by settings.
        """
        self._lock_admins(db)
        row = self._row(db, name)
        before = Account.of(row)
        if row.machine and change.role not in (None, row.role):
            raise UserProtected("The role of the account that SMOKE_USER names can't be changed.")
        if change.role == "user" or change.active is False:
            self._keep_an_admin(db, row)
        for field in ("full_name", "role", "active", "password_hash"):
            if (value := getattr(change, field)) is not None:
                setattr(row, field, value)
        row.changed_at = self._clock()
        db.flush()
        return before, Account.of(row)

    def delete(self, db: Session, name: str) -> Account:
        """Deletes a user with all its sessions.

        Raises:
            UserNotFound: nobody has the name.
            UserProtected: it is the last active administrator.
        """
        self._lock_admins(db)
        row = self._row(db, name)
        self._keep_an_admin(db, row)
        account = Account.of(row)
        db.delete(row)
        db.flush()
        return account

    def _find(self, db: Session, name: str) -> UserRow | None:
        if not is_user_name(name):  # also what Postgres would not take, as NUL
            return None
        return db.scalar(select(UserRow).where(UserRow.name_key == name_key(name)))

    def _row(self, db: Session, name: str) -> UserRow:
        row = self._find(db, name)
        if row is None:
            raise UserNotFound("There is no such user.")
        return row

    def _lock_admins(self, db: Session) -> None:
        # Two administrators who remove each other at once: the second one waits here and then sees the first's work.
        db.execute(
            select(UserRow.id).where(UserRow.role == "admin").order_by(UserRow.id).with_for_update()
        )

    def _keep_an_admin(self, db: Session, row: UserRow) -> None:
        if row.role != "admin" or not row.active:
            return
        other = db.scalar(
            select(UserRow.id)
            .where(UserRow.role == "admin", UserRow.active, UserRow.id != row.id)
            .limit(1)
        )
        if other is None:
            raise UserProtected(
                "This is the last active administrator: it can't be deleted, disabled or made an ordinary user."
            )
