"""A budget is never overdrawn, takes from nobody, and goes where it saves most."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.budget import Claim, claim, most_of, shares
from policies.scaling.decision import Binding, Decision, Forecast


@st.composite
def claims_of(draw: st.DrawFn) -> list[Claim]:
    return [
        Claim(
            key=f"inference/{letter}",
            gpus=draw(st.integers(1, 8)),
            kept=draw(st.integers(0, 5)),
            wanted=draw(st.integers(0, 10)),
            capacity=draw(st.none() | st.floats(0.1, 50)),
            load=draw(st.floats(0, 300)),
        )
        for letter in draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True))
    ]


def taken(claims: list[Claim], replicas: dict[str, int]) -> int:
    return sum(each.gpus * replicas[each.key] for each in claims)


def saved(claims: list[Claim], replicas: dict[str, int]) -> float:
    return sum(each.saved(number + 1) for each in claims for number in range(replicas[each.key]))


@given(claims_of(), st.integers(0, 60))
def test_nothing_is_granted_beyond_the_budget_and_nothing_taken(claims: list[Claim], gpus: int) -> None:
    granted = dict(shares(claims, gpus))
    kept = {each.key: each.kept for each in claims}
    assert taken(claims, granted) <= max(gpus, taken(claims, kept))
    for each in claims:
        assert each.kept <= granted[each.key] <= max(each.kept, each.wanted)


@given(claims_of(), st.integers(0, 60), st.randoms(use_true_random=False))
def test_whoever_comes_first_has_no_more(claims: list[Claim], gpus: int, random: object) -> None:
    shuffled = list(claims)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert shares(claims, gpus) == shares(shuffled, gpus)


@given(claims_of(), st.integers(0, 60))
def test_what_is_left_would_fit_nobody_who_wants_more(claims: list[Claim], gpus: int) -> None:
    granted = dict(shares(claims, gpus))
    left = gpus - taken(claims, granted)
    assert not any(granted[each.key] < each.wanted and each.gpus <= left for each in claims)


@given(claims_of(), st.integers(0, 60))
def test_of_replicas_alike_in_gpus_no_other_sharing_saves_more(claims: list[Claim], gpus: int) -> None:
    """One granted is never worth less than one refused."""
    alike = [replace(each, gpus=2, kept=0) for each in claims]
    granted = dict(shares(alike, gpus))
    least = min((each.saved(granted[each.key]) for each in alike if granted[each.key]), default=None)
    refused = [each.saved(granted[each.key] + 1) for each in alike if granted[each.key] < each.wanted]
    assert least is None or not refused or least >= max(refused) - 1e-9


@given(claims_of(), st.integers(0, 60))
def test_each_alone_may_take_what_nobody_else_wants_and_all_others_still_have_theirs(
    claims: list[Claim], gpus: int
) -> None:
    granted = dict(shares(claims, gpus))
    kept = {each.key: each.kept for each in claims}
    for each in claims:
        most = most_of(each.key, claims, gpus)
        assert most >= granted[each.key]
        assert taken(claims, granted | {each.key: most}) <= max(gpus, taken(claims, kept))


def test_the_replica_that_saves_most_for_a_gpu_goes_first() -> None:
    small = Claim("inference/small", gpus=1, kept=1, wanted=4, capacity=3.0, load=9.5)
    large = Claim("inference/large", gpus=4, kept=1, wanted=3, capacity=20.0, load=45.0)
    assert shares([small, large], 10) == {"inference/small": 2, "inference/large": 2}
    assert shares([small, large], 12) == {"inference/small": 4, "inference/large": 2}
    assert shares([small, replace(large, load=22.0)], 10) == {"inference/small": 4, "inference/large": 1}


DECIDED = Decision(0.0, 5, 5, 3, Binding.FORECAST, "", forecast=Forecast(60.0, "trend", 4.0, 9.0, 0.9), demand=3.0)


def made_of(decision: Decision | None, fewest: int = 1, most: int = 8) -> Claim:
    return claim("a", 2, 1, decision, fewest=fewest, most=most)


def test_a_decision_becomes_a_claim_with_the_load_that_it_was_made_for() -> None:
    assert made_of(None) == Claim("a", 2, 1)
    assert made_of(replace(DECIDED, capacity=2.0)) == Claim("a", 2, 1, 5, 2.0, 9.0)
    assert made_of(replace(DECIDED, capacity=2.0), most=4).wanted == 4
    assert made_of(replace(DECIDED, capacity=3.0)).load == 15.0, "five replicas are wanted for what waits"
    assert made_of(replace(DECIDED, capacity=2.0), fewest=7) == Claim("a", 2, 1, 7, 2.0, 14.0)
    assert made_of(DECIDED).saved(3) == 0.0, "what a replica bears is not known"
