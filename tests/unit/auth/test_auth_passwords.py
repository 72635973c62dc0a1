import asyncio

import bcrypt
import pytest

from product_classifier.auth import passwords
from product_classifier.auth.errors import HashingBusy, PasswordRefused
from product_classifier.auth.passwords import (
    PasswordHasher,
    check_new_password,
    hash_password,
    matches,
)


@pytest.mark.parametrize(
    ("password", "rule"),
    [
        ("short", "at least 8 characters. It has 5"),
        ("x" * 73, "at most 72 bytes in UTF-8, bcrypt's limit. It has 73"),
        ("é" * 37, "It has 74"),
        ("with\0nul-inside", "without NUL"),
        ("half \ud800 a pair", "half a surrogate pair"),
        ("changeme", "placeholder"),
        ("<your password>", "placeholder"),
    ],
    ids=["short", "73-bytes", "accents", "nul", "surrogate", "changeme", "template"],
)
def test_new_password_must_keep_the_rules(password: str, rule: str) -> None:
    with pytest.raises(PasswordRefused, match=rule) as caught:
        check_new_password(password)
    assert password not in str(caught.value)


def test_72_bytes_are_allowed_and_all_of_them_count() -> None:
    password = "é" * 36
    stored = hash_password(password, 4)
    assert matches(password, stored)
    assert not matches(password[:-1] + "e!", stored)


@pytest.mark.parametrize("wrong", ["", "x" * 73, "nul\0", "\ud800", "secret-pass\0", "SECRET-PASS"])
def test_odd_passwords_are_wrong_and_raise_nothing(wrong: str) -> None:
    assert not matches(wrong, hash_password("secret-pass", 4))


def test_a_password_of_73_bytes_is_not_its_first_72() -> None:
    assert not matches("y" * 73, hash_password("y" * 72, 4))


def test_default_cost_is_12() -> None:
    assert passwords.ROUNDS == 12
    assert PasswordHasher(1)._dummy.startswith("$2b$12$")


def test_every_verification_is_one_bcrypt_of_one_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []
    original = bcrypt.checkpw

    def count(password: bytes, hashed: bytes) -> bool:
        calls.append(hashed)
        return original(password, hashed)

    hasher = PasswordHasher(8, rounds=4)
    stored = hash_password("right-password", 4)
    monkeypatch.setattr(bcrypt, "checkpw", count)
    cases = [("right-password", stored), ("wrong", stored), ("x" * 100, stored), ("any", None)]
    for password, known in cases:
        calls.clear()
        matched = asyncio.run(hasher.verify(password, known))
        assert matched == (password == "right-password")
        assert len(calls) == 1
        assert calls[0].startswith(b"$2b$04$")
    hasher.close()


def test_full_queue_is_refused_at_once_and_frees_its_places() -> None:
    hasher = PasswordHasher(queue=1, rounds=4, workers=1)
    with hasher.place(), hasher.place():
        assert hasher.waiting == 2
        with pytest.raises(HashingBusy):
            asyncio.run(hasher.hash("long-enough-pass"))
    assert hasher.waiting == 0
    assert asyncio.run(hasher.hash("long-enough-pass")).startswith("$2b$04$")
    hasher.close()


def test_at_most_workers_and_queue_hash_at_a_time() -> None:
    hasher = PasswordHasher(queue=2, rounds=8, workers=2)

    async def hash_ten() -> list[object]:
        return await asyncio.gather(
            *(hasher.hash(f"password-{n}") for n in range(10)), return_exceptions=True
        )

    outcomes = asyncio.run(hash_ten())
    assert [isinstance(outcome, HashingBusy) for outcome in outcomes].count(True) == 6
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 4
    hasher.close()
