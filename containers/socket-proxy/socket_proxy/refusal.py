"""What is not allowed, with the reason that the caller and the log are told."""


class Refused(Exception):
    """The request is not allowed; `str()` says what of it."""

    def __init__(self, reason: str, status: int = 403) -> None:
        super().__init__(reason)
        self.status = status
