"""Signing in, refreshing and signing out: the flows behind /token, /token/refresh, /logout."""

from dataclasses import replace

from starlette.concurrency import run_in_threadpool

from product_classifier.auth.audit import AuditEvent, AuditLog, Origin
from product_classifier.auth.database import Database
from product_classifier.auth.errors import (
    HashingBusy,
    LockedOut,
    RefreshRefused,
    SignInRefused,
)
from product_classifier.auth.lockout import Lockout, attempt_key
from product_classifier.auth.metrics import AuthMetrics
from product_classifier.auth.passwords import PasswordHasher
from product_classifier.auth.sessions import SessionStore, Started
from product_classifier.auth.users import Account, UserStore


class SignIn:
    """Checks passwords and turns them into sessions."""

    def __init__(
        self,
        database: Database,
        hasher: PasswordHasher,
        lockout: Lockout,
        sessions: SessionStore,
        users: UserStore,
        audit: AuditLog,
        metrics: AuthMetrics,
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._lockout = lockout
        self._sessions = sessions
        self._users = users
        self._audit = audit
        self._metrics = metrics

    async def sign_in(self, name: str, password: str, origin: Origin) -> Started:
        """Starts a session.

        Raises:
            SignInRefused: name or password is wrong, or the user is disabled.
            LockedOut: too many failures before.
            HashingBusy: too many sign-ins at a time.
        """
        try:
            account, password_hash = await self.verify(name, password, origin)
            started = await run_in_threadpool(self._start, account, password_hash, origin)
        except SignInRefused:
            self._metrics.count_login("refused")
            raise
        except LockedOut:
            self._metrics.count_login("locked_out")
            raise
        except HashingBusy:
            self._metrics.count_login("busy")
            raise
        self._metrics.count_login("success")
        return started

    async def verify(self, name: str, password: str, origin: Origin) -> tuple[Account, str]:
        """Checks a password, at one and the same cost for users there are, users there aren't and disabled ones.

        Raises:
            SignInRefused: name or password is wrong, or the user is disabled.
            LockedOut: too many failures before.
            HashingBusy: too many sign-ins at a time.
        """
        key = attempt_key(name, origin.address)
        try:
            await self._lockout.check(key)
            with self._hasher.place():
                return await self._verify(key, name, password, origin)
        except LockedOut:
            self._audit.log(AuditEvent.LOGIN_FAILED, origin, detail="locked out")
            raise

    async def _verify(
        self, key: str, name: str, password: str, origin: Origin
    ) -> tuple[Account, str]:
        known = await run_in_threadpool(self._credentials, name)
        subject = known[0].name if known else None
        async with self._lockout.attempt(key, origin, subject) as attempt:
            usable = known is not None and known[0].active
            attempt.succeeded = await self._hasher.verify(
                password, known[1] if known and usable else None
            )
        if attempt.locked_now:
            self._metrics.count_lockout()
        if known is None or not attempt.succeeded:
            await run_in_threadpool(self._record, AuditEvent.LOGIN_FAILED, origin, subject)
            raise SignInRefused("User name or password is wrong.")
        return known

    def _credentials(self, name: str) -> tuple[Account, str] | None:
        with self._database.read() as db:
            return self._users.credentials(db, name)

    def _start(self, account: Account, password_hash: str, origin: Origin) -> Started:
        with self._database.write() as db:
            started = self._sessions.start(db, account, password_hash)
            self._audit.record(
                db, AuditEvent.LOGIN, replace(origin, actor=account.name), account.name
            )
        return started

    def _record(self, event: AuditEvent, origin: Origin, subject: str | None) -> None:
        with self._database.write() as db:
            self._audit.record(db, event, origin, subject)

    def refresh(self, token: str, origin: Origin) -> Started:
        """Takes a refresh token and gives the next one.

        Raises:
            RefreshRefused: it is not the newest token of a live session; one that was used before ends its session.
        """
        with self._database.write() as db:
            outcome = self._sessions.rotate(db, token)
            if isinstance(outcome, RefreshRefused) and outcome.reason == "reused":
                owner = self._sessions.owner(db, token)
                self._audit.record(db, AuditEvent.REFRESH_REUSED, origin, owner)
        if isinstance(outcome, RefreshRefused):
            self._metrics.count_refresh(outcome.reason)
            raise outcome
        self._metrics.count_refresh("success")
        return outcome

    def sign_out(self, session_id: str, origin: Origin) -> None:
        """Ends a session: its refresh token is worthless, and auth no longer believes its access tokens."""
        with self._database.write() as db:
            self._sessions.revoke(db, session_id, "logout")
            self._audit.record(db, AuditEvent.LOGOUT, origin, origin.actor)
