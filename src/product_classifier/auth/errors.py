"""What can go wrong with a user, a password or a session. Routes give each its HTTP status."""

from product_classifier.core.errors import ConfigurationError, ProductClassifierError


class PasswordRefused(ConfigurationError):
    """A new password breaks a rule; the message says which and never repeats it."""


class UserNameRefused(ConfigurationError):
    """A user name has characters or a length that is not allowed."""


class UserExists(ConfigurationError):
    """Another user has this name, in whatever case."""


class UserNotFound(ConfigurationError):
    """No user has this name."""


class UserProtected(ConfigurationError):
    """The change would leave no active administrator, or touches an account that settings govern."""


class SignInRefused(ProductClassifierError):
    """User name or password is wrong, or the user is disabled: never told apart."""


class LockedOut(ProductClassifierError):
    """Too many failures of one user name from one address."""

    def __init__(self, retry_seconds: int) -> None:
        super().__init__("Too many failed attempts. Try again later.")
        self.retry_seconds = retry_seconds


class HashingBusy(ProductClassifierError):
    """As many sign-ins wait for a processor as may."""

    retry_seconds = 2


class RefreshRefused(ProductClassifierError):
    """A refresh token is unknown, expired, revoked or was used before.

    Attributes:
        reason: One of unknown, expired, revoked, reused, disabled.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("The refresh token is not valid (any more). Sign in again.")
        self.reason = reason
