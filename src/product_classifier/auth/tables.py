"""The tables of auth. Times are seconds since 1970 (UTC), so that SQLite and Postgres hold the same value.

A change here needs a migration in `migrations/versions`; a test compares the two.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Named constraints, so that a migration can drop them on both databases.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
# SQLite counts up only a key of type INTEGER.
_Counter = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Registers the tables."""

    metadata = MetaData(naming_convention=NAMING)


class UserRow(Base):
    """Who may sign in. `name_key` is the name in lower case: names differ by more than case."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("role IN ('admin', 'user')", name="role"),)

    id: Mapped[int] = mapped_column(_Counter, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    name_key: Mapped[str] = mapped_column(String(64), unique=True)
    full_name: Mapped[str | None] = mapped_column(String(200))
    password_hash: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(16))
    active: Mapped[bool] = mapped_column(Boolean)
    machine: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[float] = mapped_column(Double)
    changed_at: Mapped[float] = mapped_column(Double)


class SessionRow(Base):
    """One sign-in and all its refresh tokens: a family, of which only the newest token is good.

    `family_hash` finds the family from any of its tokens, `token_hash` is the newest token. Both are SHA-256 of
    random values, so a copy of the table gives nobody a session.
    """

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    family_hash: Mapped[str] = mapped_column(String(64), unique=True)
    token_hash: Mapped[str] = mapped_column(String(64))
    rotations: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[float] = mapped_column(Double, index=True)
    revoked_at: Mapped[float | None] = mapped_column(Double)
    revoked_for: Mapped[str | None] = mapped_column(String(32))


class LoginFailureRow(Base):
    """One failed sign-in. The key hides the name that was typed: people type passwords there."""

    __tablename__ = "login_failures"
    __table_args__ = (Index(None, "attempt_key", "failed_at"),)

    id: Mapped[int] = mapped_column(_Counter, primary_key=True)
    attempt_key: Mapped[str] = mapped_column(String(64))
    failed_at: Mapped[float] = mapped_column(Double)


class LoginLockRow(Base):
    """A user name and address that may not try for a while."""

    __tablename__ = "login_locks"

    attempt_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    locked_until: Mapped[float] = mapped_column(Double)


class AuditRow(Base):
    """Something that somebody did to a user, a session or a key."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(_Counter, primary_key=True)
    at: Mapped[float] = mapped_column(Double)
    event: Mapped[str] = mapped_column(String(32))
    actor: Mapped[str | None] = mapped_column(String(64))
    subject: Mapped[str | None] = mapped_column(String(64))
    address: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(String(200))
