"""The parts of auth, put together. Everything that the routes and the commands need, and no HTTP."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from product_classifier.auth.administration import Administration
from product_classifier.auth.audit import AuditLog
from product_classifier.auth.bootstrap import FirstUsers, check_settings
from product_classifier.auth.database import Database, database_url
from product_classifier.auth.lockout import Lockout, LockoutRule
from product_classifier.auth.metrics import AuthMetrics
from product_classifier.auth.migrate import migrate, starting
from product_classifier.auth.passwords import ROUNDS, PasswordHasher
from product_classifier.auth.sessions import SessionStore
from product_classifier.auth.sign_in import SignIn
from product_classifier.auth.signing import Signing
from product_classifier.auth.users import UserStore
from product_classifier.core.errors import ProductClassifierError
from product_classifier.core.settings import Settings
from product_classifier.web.metric_registry import MetricRegistry
from product_classifier.web.tokens import TokenClaims

logger = logging.getLogger(__name__)

DAY_SECONDS = 86_400


@dataclass(frozen=True)
class AuthService:
    """An open auth service: database, keys and what works on them."""

    database: Database
    signing: Signing
    hasher: PasswordHasher
    sign_in: SignIn
    administration: Administration
    sessions: SessionStore
    lockout: Lockout
    audit: AuditLog
    metrics: AuthMetrics

    async def verify_token(self, token: str) -> TokenClaims:
        """Gives what a valid access token says. Does not ask the database.

        Raises:
            TokenError: the token is not valid.
        """
        return self.signing.verify(token)

    def is_ready(self) -> bool:
        """Tells whether tokens can be given: the database answers and there is a key."""
        try:
            self.database.ping()
            self.signing.check()
        except (SQLAlchemyError, ProductClassifierError) as error:
            logger.warning("Not ready: %s", type(error).__name__)
            return False
        return True

    def clean_up(self) -> None:
        """Removes rows that no longer count."""
        with self.database.write() as db:
            removed = self.sessions.clean_up(db)
            self.lockout.clean_up(db)
            self.audit.clean_up(db)
        logger.debug("Clean-up done", extra={"sessions": removed})

    def close(self) -> None:
        """Lets hashing end and closes the connections."""
        self.hasher.close()
        self.database.close()


def open_service(
    settings: Settings,
    registry: MetricRegistry | None = None,
    *,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.time,
    make_users: bool = True,
) -> AuthService:
    """Opens the database and the keys, runs missing migrations and makes the users that settings ask for.

    Args:
        settings: The deployment's settings.
        registry: Where metrics go. Default: one of its own.
        rounds: bcrypt's cost.
        clock: Gives the time, for lockout and sessions.
        make_users: False for the command line: its environment may lack the service's passwords, and that must not
            disable the machine account.

    Raises:
        ConfigurationError: a setting is missing or can't be used.
        ProductClassifierError: the database can't be reached.
    """
    if make_users:
        check_settings(settings)
    database = Database(database_url(settings))
    try:
        with starting(database):
            migrate(database)
            if make_users:
                _make_users(settings, database, rounds, clock)
        return _assemble(settings, database, registry or MetricRegistry(), rounds, clock)
    except BaseException:
        database.close()
        raise


def _make_users(
    settings: Settings, database: Database, rounds: int, clock: Callable[[], float]
) -> None:
    sessions = SessionStore(settings.refresh_token_expire_days * DAY_SECONDS, clock)
    FirstUsers(settings, UserStore(clock), sessions, AuditLog(clock), rounds).make(database)


def _assemble(
    settings: Settings,
    database: Database,
    registry: MetricRegistry,
    rounds: int,
    clock: Callable[[], float],
) -> AuthService:
    users, audit = UserStore(clock), AuditLog(clock)
    sessions = SessionStore(settings.refresh_token_expire_days * DAY_SECONDS, clock)
    rule = LockoutRule(
        settings.login_lockout_failures,
        settings.login_lockout_window_seconds,
        settings.login_lockout_seconds,
    )
    signing, metrics = Signing(settings), AuthMetrics(registry)
    hasher = PasswordHasher(settings.login_queue, rounds)
    metrics.watch_waiting(lambda: hasher.waiting)
    lockout = Lockout(database, rule, audit, clock)
    return AuthService(
        database=database,
        signing=signing,
        hasher=hasher,
        sign_in=SignIn(database, hasher, lockout, sessions, users, audit, metrics),
        administration=Administration(database, users, sessions, audit),
        sessions=sessions,
        lockout=lockout,
        audit=audit,
        metrics=metrics,
    )
