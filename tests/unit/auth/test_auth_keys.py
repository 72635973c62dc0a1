"""The key file: who may read it, what a rotation does, and what survives a kill."""

import fcntl
import json
import logging
import multiprocessing
import os
import signal
import stat
import threading
import time
from pathlib import Path

import pytest

from product_classifier.auth.keys import KEY_FILE, MAX_KEYS, PUBLISH_SECONDS, KeyStore
from product_classifier.core.errors import ConfigurationError
from product_classifier.web.jwks import REFRESH_SECONDS
from product_classifier.web.tokens import SigningKey, TokenError, TokenSigner, TokenVerifier

NOW = 1_790_000_000
LIFETIME = 1800


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "auth"


@pytest.fixture
def store(folder: Path) -> KeyStore:
    return KeyStore(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def is_accepted(store: KeyStore, token: str, now: float) -> bool:
    try:
        TokenVerifier(store.verification_keys(now)).verify(token, now)
    except TokenError:
        return False
    return True


def test_the_first_key_is_made_privately(folder: Path) -> None:
    previous = os.umask(0)
    try:
        store = KeyStore(folder)
    finally:
        os.umask(previous)
    assert mode(folder) == 0o700
    assert mode(folder / KEY_FILE) == 0o600
    assert {path.name for path in folder.iterdir()} == {KEY_FILE, ".keys.lock"}
    assert list(store.verification_keys()) == [store.current().kid]


def test_a_restart_keeps_the_keys(folder: Path, store: KeyStore) -> None:
    before = (folder / KEY_FILE).read_bytes()
    assert KeyStore(folder).current().kid == store.current().kid
    assert (folder / KEY_FILE).read_bytes() == before


def test_a_folder_that_was_open_to_others_is_closed(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o777)
    folder.chmod(0o777)
    KeyStore(folder)
    assert mode(folder) == 0o700


@pytest.mark.parametrize("bits", [0o604, 0o640, 0o644, 0o620, 0o666])
def test_a_key_file_that_others_could_use_is_refused(folder: Path, bits: int) -> None:
    KeyStore(folder)
    (folder / KEY_FILE).chmod(bits)
    with pytest.raises(ConfigurationError, match=f"mode {bits:o}.*600"):
        KeyStore(folder)


def _spoil(folder: Path, how: str) -> None:
    path = folder / KEY_FILE
    document = json.loads(path.read_text())
    other = SigningKey.generate(NOW)
    record = document["keys"][0]
    changes = {
        "empty": lambda: "",
        "cut": lambda: path.read_text()[: len(path.read_text()) // 2],
        "not-json": lambda: "keys",
        "no-keys": lambda: json.dumps({"version": 1, "keys": []}),
        "later-version": lambda: json.dumps(document | {"version": 2}),
        "unknown-field": lambda: json.dumps(document | {"extra": 1}),
        "other-kid": lambda: json.dumps({"version": 1, "keys": [record | {"kid": other.kid}]}),
        "other-key": lambda: json.dumps(
            {"version": 1, "keys": [record | {"private_key": other.to_pem()}]}
        ),
        "damaged-key": lambda: json.dumps(
            {"version": 1, "keys": [record | {"private_key": record["private_key"][:80]}]}
        ),
        "twice": lambda: json.dumps({"version": 1, "keys": [record, record]}),
        "newest-retires": lambda: json.dumps({"version": 1, "keys": [record | {"retire_at": NOW}]}),
        "text-for-a-date": lambda: json.dumps({"version": 1, "keys": [record | {"signs_from": "0"}]}),
        "nested": lambda: "[" * 100_000,
    }  # fmt: skip
    path.write_text(changes[how]())


@pytest.mark.parametrize(
    "how",
    ["empty", "cut", "not-json", "no-keys", "later-version", "unknown-field", "other-kid",
     "other-key", "damaged-key", "twice", "newest-retires", "text-for-a-date", "nested"],
)  # fmt: skip
def test_a_damaged_key_file_stops_the_start_and_is_left_alone(folder: Path, how: str) -> None:
    private = KeyStore(folder).current().to_pem().splitlines()[1]
    _spoil(folder, how)
    before = (folder / KEY_FILE).read_bytes()
    with pytest.raises(ConfigurationError, match="damaged.*backup") as refused:
        KeyStore(folder)
    assert private not in f"{refused.value!r} {refused.value.__cause__!r}"
    assert (folder / KEY_FILE).read_bytes() == before


def test_a_link_or_a_folder_in_the_files_place_is_refused(tmp_path: Path, folder: Path) -> None:
    KeyStore(folder)
    (folder / KEY_FILE).rename(tmp_path / "elsewhere")
    (folder / KEY_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="can't be read"):
        KeyStore(folder)
    (folder / KEY_FILE).unlink()
    (folder / KEY_FILE).mkdir()
    with pytest.raises(ConfigurationError, match="not a regular file|can't be read"):
        KeyStore(folder)


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "auth").write_text("")
    with pytest.raises(ConfigurationError, match="key folder"):
        KeyStore(tmp_path / "auth")


def test_a_new_key_is_published_before_it_signs(store: KeyStore) -> None:
    old = store.current(NOW)
    new = store.rotate(LIFETIME, now=NOW)
    assert set(store.verification_keys(NOW)) == {old.kid, new.kid}
    assert store.current(NOW + PUBLISH_SECONDS - 1).kid == old.kid
    assert store.current(NOW + PUBLISH_SECONDS).kid == new.kid
    # What reads the keys in the background has them by then, without being asked for an unknown one.
    assert PUBLISH_SECONDS > REFRESH_SECONDS


def test_the_last_token_of_an_old_key_lives_its_whole_life(store: KeyStore) -> None:
    old = store.current(NOW)
    store.rotate(LIFETIME, now=NOW)
    last = NOW + PUBLISH_SECONDS - 1
    token = TokenSigner(store.current(last), lifetime_seconds=LIFETIME).issue(
        "a", "user", "s", last
    )
    assert is_accepted(store, token, last + LIFETIME - 1)
    assert old.kid not in store.verification_keys(last + LIFETIME + 1)


def test_retired_keys_leave_the_file_with_the_next_rotation(folder: Path, store: KeyStore) -> None:
    old = store.current(NOW)
    store.rotate(LIFETIME, now=NOW)
    store.rotate(LIFETIME, now=NOW + PUBLISH_SECONDS + LIFETIME)
    kids = [record["kid"] for record in json.loads((folder / KEY_FILE).read_text())["keys"]]
    assert len(kids) == 2
    assert old.kid not in kids
    assert mode(folder / KEY_FILE) == 0o600


def test_a_second_rotation_before_the_first_took_over_loses_no_token(store: KeyStore) -> None:
    tokens: list[tuple[str, int]] = []
    for moment in range(NOW, NOW + 1500, 50):
        if moment in (NOW + 100, NOW + 200, NOW + 900):
            store.rotate(LIFETIME, now=moment)
        signer = TokenSigner(store.current(moment), lifetime_seconds=LIFETIME)
        tokens.append((signer.issue("a", "user", "s", moment), moment))
    for token, moment in tokens:
        assert all(is_accepted(store, token, moment + age) for age in (0, 900, LIFETIME - 1))


def test_a_leaked_key_can_be_ended_at_once(store: KeyStore) -> None:
    token = TokenSigner(store.current(NOW), lifetime_seconds=LIFETIME).issue("a", "user", "s", NOW)
    store.rotate(LIFETIME, now=NOW)  # one that waits to sign is ended too
    new = store.rotate(0, publish_seconds=0, now=NOW)
    assert list(store.verification_keys(NOW)) == [new.kid]
    assert store.current(NOW).kid == new.kid
    assert not is_accepted(store, token, NOW)


def test_a_clock_before_every_key_still_signs_with_the_best_known(store: KeyStore) -> None:
    store.rotate(0, publish_seconds=0, now=NOW)
    new = store.rotate(LIFETIME, now=NOW)
    assert store.current(NOW - 10_000).kid in store.verification_keys(NOW - 10_000)
    assert store.current(NOW - 10_000).kid != new.kid


def test_rotating_without_end_is_refused(store: KeyStore) -> None:
    for _ in range(MAX_KEYS - 1):
        store.rotate(LIFETIME, now=NOW)
    with pytest.raises(ConfigurationError, match="most allowed"):
        store.rotate(LIFETIME, now=NOW)
    assert len(store.verification_keys(NOW)) == MAX_KEYS


def test_negative_times_are_refused(store: KeyStore) -> None:
    with pytest.raises(ConfigurationError, match="0 seconds or more"):
        store.rotate(-1)
    with pytest.raises(ConfigurationError, match="0 seconds or more"):
        store.rotate(1, publish_seconds=-1)


def _rotate(folder: Path, count: int) -> None:
    for _ in range(count):
        KeyStore(folder).rotate(LIFETIME, publish_seconds=0)


def _run(target: object, *arguments: object) -> multiprocessing.Process:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)  # type: ignore[arg-type]
    process.start()
    return process


def test_a_rotation_in_another_process_takes_effect_in_this_one(
    store: KeyStore, folder: Path
) -> None:
    old = store.current()
    process = _run(_rotate, folder, 1)
    process.join(240)
    assert process.exitcode == 0
    assert store.current().kid != old.kid
    assert set(store.verification_keys()) == {old.kid, store.current().kid}


def test_a_writer_waits_for_the_one_before_it(folder: Path, store: KeyStore) -> None:
    with (folder / ".keys.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = (folder / KEY_FILE).read_bytes()
        writer = threading.Thread(target=store.rotate, args=(LIFETIME,))
        writer.start()
        writer.join(0.5)
        assert writer.is_alive()
        assert (folder / KEY_FILE).read_bytes() == before
    writer.join(120)
    assert len(store.verification_keys()) == 2


def test_rotations_at_the_same_time_lose_no_key(folder: Path, store: KeyStore) -> None:
    processes = [_run(_rotate, folder, 3) for _ in range(3)]
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    assert len(store.verification_keys()) == 10


def _open_and_tell(folder: Path, queue: "multiprocessing.Queue[str]") -> None:
    queue.put(KeyStore(folder).current().kid)


def test_two_first_starts_agree_on_one_key(folder: Path) -> None:
    queue: multiprocessing.Queue[str] = multiprocessing.get_context("spawn").Queue()
    processes = [_run(_open_and_tell, folder, queue) for _ in range(3)]
    kids = {queue.get(timeout=240) for _ in processes}
    for process in processes:
        process.join(240)
    assert kids == {KeyStore(folder).current().kid}


@pytest.mark.parametrize("spoil", ["cut", "open", "gone"])
def test_a_running_service_keeps_its_keys_when_the_file_breaks(
    folder: Path, store: KeyStore, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, kid = folder / KEY_FILE, store.current().kid
    good = path.read_bytes()
    if spoil == "cut":
        path.write_bytes(good[:100])
    elif spoil == "open":
        path.chmod(0o644)
    else:
        path.unlink()
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            assert store.current().kid == kid
    assert len(caplog.records) == 1  # once, not at every request
    assert "PRIVATE" not in caplog.text
    path.unlink(missing_ok=True)
    path.write_bytes(good)
    path.chmod(0o600)
    new = store.rotate(LIFETIME, publish_seconds=0)
    assert store.current().kid == new.kid


def _rotate_until_killed(folder: Path) -> None:
    while True:
        KeyStore(folder).rotate(0, publish_seconds=0)


def test_a_kill_at_any_moment_leaves_whole_private_keys(folder: Path) -> None:
    KeyStore(folder)
    for round_ in range(4):
        process = _run(_rotate_until_killed, folder)
        mark = (folder / KEY_FILE).stat().st_ino
        deadline = time.monotonic() + 180
        while (folder / KEY_FILE).stat().st_ino == mark and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.01 + 0.007 * round_)  # where in the loop the kill falls does not matter
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(240)
        for path in folder.glob(f".{KEY_FILE}.*"):
            assert mode(path) == 0o600
        store = KeyStore(folder)
        assert store.current().kid in store.verification_keys()
        assert {path.name for path in folder.iterdir()} == {KEY_FILE, ".keys.lock"}


def test_what_a_killed_writer_left_is_removed(folder: Path) -> None:
    KeyStore(folder)
    leftover = folder / f".{KEY_FILE}.abc.tmp"
    leftover.write_text("private")
    KeyStore(folder)
    assert not leftover.exists()


def test_nothing_shows_a_private_key(
    folder: Path, store: KeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        new = store.rotate(LIFETIME)
    secret = new.to_pem().splitlines()[1]
    shown = f"{vars(store)!r} {new!r} {store.verification_keys()!r} {caplog.text}"
    assert secret not in shown
    assert "PRIVATE KEY" not in shown
    published = json.dumps(store.verification_keys().to_jwks())
    assert '"d"' not in published
