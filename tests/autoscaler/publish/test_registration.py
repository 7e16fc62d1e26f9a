"""Where HPAs cannot reach the numbers, whoever publishes one is told so, with the way out."""

from __future__ import annotations

from typing import Any, cast

import pytest

from autoscaler.loop import Outcome, Turn
from autoscaler.publish.numbers import METRIC, PublishedNumbers
from autoscaler.publish.registration import obstacle
from cluster.api import Api, StatusError, UnansweredError
from policies.scaling.decision import Binding, Decision
from tests.autoscaler.worlds import EMPTY, START, resource


class Discovery:
    """Answers with resources of these names, or with an error."""

    def __init__(self, answer: list[str] | Exception) -> None:
        self.answer = answer

    async def call(self, method: str, path: str) -> dict[str, Any]:
        assert (method, path) == ("GET", "/apis/external.metrics.k8s.io/v1beta1")
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"resources": [{"name": name} for name in self.answer]}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ([METRIC], ""),
        (UnansweredError("no answer"), ""),
        ([], "is served by another: publish by KEDA's external scaler"),
        (["s0-prometheus"], "is served by another"),
        (StatusError(404, "HTTP 404"), "is not registered: apply manifests/publish/hpa"),
        (StatusError(503, "HTTP 503: x509"), "is not reached (HTTP 503: x509): mend what its APIService names"),
    ],
)
async def test_what_keeps_hpas_from_asking_is_said_with_the_way_out(
    answer: list[str] | Exception, sentence: str
) -> None:
    said = await obstacle(cast("Api", Discovery(answer)))
    assert sentence in said
    assert bool(said) == bool(sentence)


async def test_whoever_publishes_is_told() -> None:
    numbers = PublishedNumbers(clock=lambda: START)
    pass_on = numbers.add(resource(mode="Publish"), 60.0)
    turn = Turn(EMPTY, Outcome.SHADOWED, None, Decision(START, 4, 4, 3, Binding.FORECAST, "as the test says"))
    numbers.problem = "no HPA can ask for it"
    said = await pass_on(turn)
    assert said is not None
    assert (said.reason, said.is_warning) == ("NobodyCanFollow", True)
    assert said.message == "no HPA can ask for it; publishes 4: as the test says"
    numbers.problem = ""
    said = await pass_on(turn)
    assert said is not None
    assert not said.is_warning
