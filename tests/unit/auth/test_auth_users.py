from concurrent.futures import ThreadPoolExecutor

import pytest

from product_classifier.auth.audit import Origin
from product_classifier.auth.errors import (
    UserExists,
    UserNameRefused,
    UserNotFound,
    UserProtected,
)
from product_classifier.auth.passwords import hash_password
from product_classifier.auth.service import AuthService
from product_classifier.auth.sessions import Started
from product_classifier.auth.users import NewUser, UserChange

HASH = hash_password("some-password", 4)
BOSS = Origin(actor="admin", address="192.0.2.1", request_id="r1")


def start_session(service: AuthService, name: str) -> Started:
    account = service.administration.find(name)
    with service.database.write() as db:
        found = service.sign_in._credentials(account.name)
        assert found is not None
        return service.sessions.start(db, *found)


def is_live(service: AuthService, started: Started) -> bool:
    return service.administration.live_account(started.session_id) is not None


def test_users_are_made_found_and_listed(service: AuthService) -> None:
    admin = service.administration
    made = admin.create(NewUser("Zoe.B@shop-1_x", HASH, full_name="Zoé \U0001f600"), BOSS)
    assert (made.role, made.active, made.full_name) == ("user", True, "Zoé \U0001f600")
    assert admin.find("zoe.b@SHOP-1_X") == made
    users, total = admin.list_users(10, 0)
    assert [user.name for user in users] == ["admin", "Zoe.B@shop-1_x"]
    assert total == 2
    assert admin.list_users(1, 1)[0] == [made]


def test_names_differ_by_more_than_case(service: AuthService) -> None:
    service.administration.create(NewUser("Bob", HASH), BOSS)
    with pytest.raises(UserExists):
        service.administration.create(NewUser("bOB", HASH), BOSS)
    assert service.administration.list_users(10, 0)[1] == 2


@pytest.mark.parametrize(
    "name", ["", "a b", "a\n", "é", "x" * 65, "a\0", "../x", "\ud800", "me", "ME"]
)
def test_odd_names_are_refused_and_not_found(service: AuthService, name: str) -> None:
    with pytest.raises(UserNameRefused):
        service.administration.create(NewUser(name, HASH), BOSS)
    with pytest.raises(UserNotFound):
        service.administration.find(name)


def test_last_active_administrator_stays(service: AuthService) -> None:
    admin = service.administration
    admin.create(NewUser("second", HASH, role="admin"), BOSS)
    admin.change("second", UserChange(active=False), BOSS)
    for change in (UserChange(role="user"), UserChange(active=False)):
        with pytest.raises(UserProtected, match="last active administrator"):
            admin.change("admin", change, BOSS)
    with pytest.raises(UserProtected, match="last active administrator"):
        admin.delete("ADMIN", BOSS)
    assert admin.find("admin").role == "admin"
    admin.change("second", UserChange(active=True), BOSS)
    admin.delete("admin", BOSS)
    assert [user.name for user in admin.list_users(9, 0)[0]] == ["second"]


def test_two_administrators_who_demote_each_other_leave_one(service: AuthService) -> None:
    admin = service.administration
    for round_number in range(5):
        name = f"boss{round_number}"
        admin.create(NewUser(name, HASH, role="admin"), BOSS)
        current = [u.name for u in admin.list_users(50, 0)[0] if u.role == "admin"]
        assert len(current) == 2

        def demote(who: str) -> bool:
            try:
                admin.change(who, UserChange(role="user"), BOSS)
            except UserProtected:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(demote, current)) == [False, True]


@pytest.mark.parametrize(
    "change",
    [UserChange(role="admin"), UserChange(active=False), UserChange(password_hash=HASH)],
    ids=["role", "disabled", "password"],
)
def test_role_password_and_disabling_end_all_sessions(
    service: AuthService, change: UserChange
) -> None:
    service.administration.create(NewUser("bob", HASH), BOSS)
    sessions = [start_session(service, "bob") for _ in range(3)]
    other = start_session(service, "admin")
    assert all(is_live(service, session) for session in sessions)
    service.administration.change("bob", change, BOSS)
    assert not any(is_live(service, session) for session in sessions)
    assert is_live(service, other)


def test_other_changes_leave_sessions_alone(service: AuthService) -> None:
    service.administration.create(NewUser("bob", HASH), BOSS)
    session = start_session(service, "bob")
    service.administration.change("bob", UserChange(full_name="Bob B", role="user"), BOSS)
    assert is_live(service, session)


def test_own_password_change_keeps_its_session_only(service: AuthService) -> None:
    kept, ended = start_session(service, "admin"), start_session(service, "admin")
    service.administration.change("admin", UserChange(password_hash=HASH), BOSS, kept.session_id)
    assert is_live(service, kept)
    assert not is_live(service, ended)


def test_deleting_a_user_takes_its_sessions_along(service: AuthService) -> None:
    service.administration.create(NewUser("bob", HASH), BOSS)
    session = start_session(service, "bob")
    service.administration.delete("bob", BOSS)
    service.administration.create(NewUser("bob", HASH), BOSS)
    assert not is_live(service, session)


def test_changes_are_in_the_audit_trail_without_secrets(
    service: AuthService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    admin = service.administration
    admin.create(NewUser("bob", HASH), BOSS)
    admin.change("bob", UserChange("Bob", "admin", False, HASH), BOSS)
    admin.delete("bob", BOSS)
    entries = admin.read_audit(6)
    told = [(entry["event"], entry["subject"], entry["detail"]) for entry in reversed(entries)]
    assert told == [
        ("user_created", "bob", "role user"),
        ("role_changed", "bob", "user to admin"),
        ("password_changed", "bob", None),
        ("user_changed", "bob", "disabled"),
        ("user_changed", "bob", "full name"),
        ("user_deleted", "bob", None),
    ]
    assert {(e["actor"], e["address"], e["request_id"]) for e in entries} == {
        ("admin", "192.0.2.1", "r1")
    }
    logged = [r for r in caplog.records if r.name == "product_classifier.audit"]
    assert [vars(record)["event"] for record in logged] == [event for event, *_ in told]
    assert HASH not in caplog.text + repr(NewUser("bob", HASH)) + repr(
        UserChange(password_hash=HASH)
    )
    assert HASH not in repr([vars(record) for record in caplog.records]) + repr(entries)


def test_audit_trail_is_read_in_pages_and_by_kind(service: AuthService) -> None:
    admin = service.administration
    for number in range(5):
        admin.create(NewUser(f"u{number}", HASH), BOSS)
    admin.delete("u0", BOSS)
    first = admin.read_audit(3)
    second = admin.read_audit(3, before=int(str(first[-1]["id"])))
    assert [e["subject"] for e in first + second] == ["u0", "u4", "u3", "u2", "u1", "u0"]
    assert [e["subject"] for e in admin.read_audit(9, event="user_deleted")] == ["u0"]
