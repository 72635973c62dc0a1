"""Every token that must not be believed, on both families: 10,000 random ones and the named ones."""

import time

import pytest

from forged_tokens import CASES, REASONS, SOUND_BUT_ODD, Forge, Make, fits_in_header, mutate_tokens
from product_classifier.web.tokens import TOKEN_REASONS, SigningKey, TokenError

NOW = 1_790_000_000
SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
FAMILIES = ["ES256", "HS256"]
MUTATIONS = 10_000


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate(NOW)


@pytest.fixture(params=FAMILIES)
def forge(request: pytest.FixtureRequest, key: SigningKey) -> Forge:
    return Forge(request.param, key, SECRET, NOW)


def test_there_are_enough_named_cases_and_each_name_is_used_once() -> None:
    assert len(CASES) >= 57
    assert len({name for name, _ in CASES}) == len(CASES)
    assert set(REASONS.values()) <= TOKEN_REASONS


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in CASES])
def test_a_forged_or_odd_token_is_refused(forge: Forge, make: Make) -> None:
    token = make(forge)
    with pytest.raises(TokenError) as refused:
        forge.verifier().verify(token, NOW)
    assert refused.value.reason in TOKEN_REASONS
    if token:
        assert token not in str(refused.value)


@pytest.mark.parametrize(("name", "make"), CASES, ids=[name for name, _ in CASES])
def test_an_es256_verifier_names_the_right_reason(key: SigningKey, name: str, make: Make) -> None:
    forge = Forge("ES256", key, SECRET, NOW)
    with pytest.raises(TokenError) as refused:
        forge.verifier().verify(make(forge), NOW)
    assert refused.value.reason == REASONS[name]


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in SOUND_BUT_ODD])
def test_a_well_signed_token_of_unusual_form_is_accepted(forge: Forge, make: Make) -> None:
    """The refusals are aimed: these prove that the forge signs rightly, so that a refusal has its own cause."""
    claims = forge.verifier().verify(make(forge), NOW)
    assert (claims.role, claims.session_id) == ("user", "family-1")


def test_the_forge_makes_tokens_that_are_accepted(forge: Forge) -> None:
    for token in (forge.valid(), forge.token()):
        assert forge.verifier().verify(token, NOW).subject == "alice"


@pytest.mark.parametrize("seed", [20_261_121, 7])
def test_ten_thousand_random_mutations_are_all_refused(forge: Forge, seed: int) -> None:
    signer = forge.signer()
    tokens = [
        signer.issue(subject, role, f"family-{place}", NOW)
        for place, (subject, role) in enumerate(
            (("alice", "user"), ("bob", "admin"), ("eve", "user"))
        )
    ]
    verifier = forge.verifier()
    for token in tokens:
        verifier.verify(token, NOW)
    accepted, odd = [], []
    reasons: set[str] = set()
    for token in mutate_tokens(tokens, MUTATIONS, seed):
        try:
            verifier.verify(token, NOW)
            accepted.append(token)
        except TokenError as error:
            reasons.add(error.reason)
        except Exception as error:
            odd.append((repr(error), token))
    assert accepted == []
    assert odd == []
    # The mutations reach deep: not all of them end at the first check.
    assert {"malformed", "signature", "algorithm", "type"} <= reasons


def test_every_single_bit_of_a_token_counts(forge: Forge) -> None:
    token = forge.valid()
    verifier = forge.verifier()
    data = token.encode()
    for place in range(len(data)):
        for bit in range(8):
            spoiled = data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]
            with pytest.raises(TokenError):
                verifier.verify(spoiled.decode("latin-1"), NOW)


def test_every_beginning_of_a_token_is_refused(forge: Forge) -> None:
    token = forge.valid()
    verifier = forge.verifier()
    for length in range(len(token)):
        with pytest.raises(TokenError):
            verifier.verify(token[:length], NOW)


def test_a_huge_token_costs_next_to_nothing(forge: Forge) -> None:
    """It is refused by its length before anything reads it."""
    verifier, token = forge.verifier(), "A" * (8 << 20)
    started = time.process_time()
    for _ in range(1000):
        with pytest.raises(TokenError, match="4096 bytes"):
            verifier.verify(token, NOW)
    assert time.process_time() - started < 6  # reading it each time takes longer than that


@pytest.mark.parametrize(
    "token", [None, b"bytes", 7, ["a"], object()], ids=["none", "bytes", "number", "list", "object"]
)
def test_what_is_not_text_is_refused(forge: Forge, token: object) -> None:
    with pytest.raises(TokenError) as refused:
        forge.verifier().verify(token, NOW)  # type: ignore[arg-type]
    assert refused.value.reason == "malformed"


def test_the_cases_for_http_are_most_of_them(key: SigningKey) -> None:
    forge = Forge("ES256", key, SECRET, NOW)
    assert sum(fits_in_header(make(forge)) for _, make in CASES) >= 57
