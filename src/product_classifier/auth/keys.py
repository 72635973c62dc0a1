"""Where the signing keys live: one private file, that a rotation in another process may replace at any moment.

A key goes through four times: made, published (serve may learn it), signing, retired. A new key is published before it
signs, longer than serve's refresh takes: then no valid token ever depends on serve asking for an unknown key, which it
does at most once in ten seconds and anybody's rubbish can use up. The old key signs meanwhile, and is kept until the
last token that it signed is dead.
"""

import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.files import write_text_atomic
from product_classifier.web.signing_keys import MAX_KEYS, SigningKey, VerificationKeys

logger = logging.getLogger(__name__)

KEY_FILE = "keys.json"
FILE_MODE, FOLDER_MODE = 0o600, 0o700
# serve asks for the keys every 300 s and gives each try 2 s.
PUBLISH_SECONDS = 330

_LOCK_FILE = ".keys.lock"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class _Record(BaseModel):
    """One key as the file holds it."""

    # hide_input: a validation error would show the private key.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    kid: str
    created_at: int = Field(ge=0)
    signs_from: int = Field(ge=0)
    retire_at: int | None = Field(ge=0)
    private_key: str = Field(repr=False)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    version: int = Field(ge=1, le=1)
    keys: list[_Record] = Field(min_length=1, max_length=MAX_KEYS)


@dataclass(frozen=True)
class _StoredKey:
    key: SigningKey
    signs_from: int
    retire_at: int | None

    def is_live(self, now: float) -> bool:
        return self.retire_at is None or now < self.retire_at


@dataclass(frozen=True)
class _Loaded:
    """The keys, oldest first, and what the file looked like when they were read."""

    keys: tuple[_StoredKey, ...]
    mark: tuple[int, ...]


class KeyStore:
    """The ES256 keys of `auth`, in `folder`/keys.json. Made on first use; follows the file from then on."""

    def __init__(self, folder: Path) -> None:
        """Opens the keys, and makes the first one where there is none.

        Raises:
            ConfigurationError: the file is damaged, is readable by others or can't be used.
        """
        self._folder = folder
        self._path = folder / KEY_FILE
        self._complained: tuple[int, ...] | None = None
        self._prepare_folder()
        with self._locked():
            self._remove_leftovers()
            if not self._path.exists():
                self._write((_StoredKey(SigningKey.generate(), signs_from=0, retire_at=None),))
        self._loaded = self._read()

    def current(self, now: float | None = None) -> SigningKey:
        """Gives the key that signs now: the newest one whose time has come."""
        moment = time.time() if now is None else now
        live = [stored for stored in self._refreshed() if stored.is_live(moment)]
        signing = [stored for stored in live if stored.signs_from <= moment]
        # The clock stands before all of them: the oldest is the one that verifiers have known longest.
        return signing[-1].key if signing else live[0].key

    def verification_keys(self, now: float | None = None) -> VerificationKeys:
        """Gives the public keys to publish and to verify with: all that are not retired, those not signing yet too."""
        moment = time.time() if now is None else now
        return VerificationKeys.of(*(s.key for s in self._refreshed() if s.is_live(moment)))

    def rotate(
        self,
        overlap_seconds: int,
        *,
        publish_seconds: int = PUBLISH_SECONDS,
        now: float | None = None,
    ) -> SigningKey:
        """Adds a key that takes over, and sets when the older ones retire. Any process may call it.

        Args:
            overlap_seconds: How long older keys verify after they stopped signing: a token's lifetime or more. With 0,
                and `publish_seconds` 0, they end at once, with every token they signed: for a key that leaked.
            publish_seconds: How long the new key is only published before it signs.
            now: Seconds since 1970; the clock's time if None.

        Returns:
            The new key.

        Raises:
            ConfigurationError: a number is negative, too many keys are alive, or the file can't be used.
        """
        if overlap_seconds < 0 or publish_seconds < 0:
            raise ConfigurationError(
                "Overlap and publishing time must be 0 seconds or more. "
                f"Received: {overlap_seconds} and {publish_seconds}."
            )
        moment = int(time.time() if now is None else now)
        with self._locked():
            older = [stored for stored in self._read().keys if stored.is_live(moment)]
            if len(older) >= MAX_KEYS:
                raise ConfigurationError(
                    f"{len(older)} keys are alive already, which is the most allowed: wait until "
                    "some retire, or rotate with an overlap of 0."
                )
            new = _StoredKey(SigningKey.generate(moment), moment + publish_seconds, None)
            ends = new.signs_from + overlap_seconds
            self._write((*_retire(older, ends, moment), new))
        logger.info("Signing key made", extra={"kid": new.key.kid, "signs_from": new.signs_from})
        return new.key

    def _refreshed(self) -> tuple[_StoredKey, ...]:
        """Reads the file again if it changed. One that became unusable is logged once and changes nothing."""
        mark = _mark(self._path)
        if mark not in (self._loaded.mark, self._complained):
            try:
                self._loaded = self._read()
            except ConfigurationError as error:
                self._complained = mark
                logger.error("The keys in use stay, the file can't be used: %s", error)
        return self._loaded.keys

    def _prepare_folder(self) -> None:
        try:
            self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            if self._folder.stat().st_uid == os.geteuid():
                self._folder.chmod(FOLDER_MODE)
        except OSError as error:
            raise ConfigurationError(
                f"The key folder {self._folder} can't be made or used: {error.strerror}."
            ) from error
        if self._folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigurationError(
                f"The key folder {self._folder} belongs to another user and others may write in it: "
                "they could replace the keys. Run `chmod 700` on it as its owner."
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds off other processes that make or rotate keys; each holds it for milliseconds."""
        try:
            descriptor = os.open(self._folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, FILE_MODE)
        except OSError as error:
            raise ConfigurationError(
                f"The key folder {self._folder} can't be written: {error.strerror}. "
                "Use the account that runs auth."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _remove_leftovers(self) -> None:
        """Removes what a killed writer left behind: it may hold a private key."""
        for leftover in self._folder.glob(f".{KEY_FILE}.*.tmp"):
            leftover.unlink(missing_ok=True)

    def _read(self) -> _Loaded:
        path = self._path
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                _check_private(path, status)
                content = file.read()
        except OSError as error:
            raise ConfigurationError(
                f"The key file {path} can't be read: {error.strerror}."
            ) from error
        return _Loaded(_parse(path, content), _marks_of(status))

    def _write(self, keys: tuple[_StoredKey, ...]) -> None:
        document = _Document(
            version=1,
            keys=[
                _Record(
                    kid=stored.key.kid,
                    created_at=stored.key.created_at,
                    signs_from=stored.signs_from,
                    retire_at=stored.retire_at,
                    private_key=stored.key.to_pem(),
                )
                for stored in keys
            ],
        )
        text = json.dumps(document.model_dump(), indent=2) + "\n"
        try:
            write_text_atomic(self._path, text, mode=FILE_MODE)
        except OSError as error:
            raise ConfigurationError(
                f"The key file {self._path} can't be written: {error.strerror}."
            ) from error


def _retire(older: list[_StoredKey], ends: int, now: int) -> list[_StoredKey]:
    """Gives every key that is to go its end. With an end of now, all go now; else an earlier end stands."""
    if ends <= now:
        return []
    return [
        replace(stored, retire_at=ends if stored.retire_at is None else stored.retire_at)
        for stored in older
    ]


def _marks_of(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode, status.st_uid)


def _mark(path: Path) -> tuple[int, ...]:
    try:
        return _marks_of(path.lstat())
    except OSError:
        return ()


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"The key file {path} is not a regular file.")
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"The key file {path} belongs to user {status.st_uid}, and this is user "
            f"{os.geteuid()}. Use the account that runs auth."
        )
    if status.st_mode & _OTHERS:
        raise ConfigurationError(
            f"The key file {path} has mode {stat.S_IMODE(status.st_mode):o}: others may have read "
            "or changed it. It must be 600. Run `chmod 600` on it if nobody else has an account "
            "here, else remove it: a new key is made, and every token becomes invalid."
        )


def _parse(path: Path, content: bytes) -> tuple[_StoredKey, ...]:
    damaged = ConfigurationError(
        f"The key file {path} is damaged. Bring it back from a backup, or remove it: a new key is "
        "made, and every token becomes invalid."
    )
    try:
        document = _Document.model_validate_json(content)
        keys = tuple(
            _StoredKey(
                SigningKey.from_pem(record.private_key, record.created_at),
                record.signs_from,
                record.retire_at,
            )
            for record in document.keys
        )
    except (ValidationError, ConfigurationError):
        raise damaged from None
    kids = [stored.key.kid for stored in keys]
    # The kid is the key's own thumbprint: a changed byte in either shows here.
    if kids != [record.kid for record in document.keys] or len(set(kids)) != len(kids):
        raise damaged
    if keys[-1].retire_at is not None:  # the newest key has no successor yet
        raise damaged
    return keys
