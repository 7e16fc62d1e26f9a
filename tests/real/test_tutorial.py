"""The tutorial is run as it stands on its page, beside the other tests: most of its time is waiting."""

from __future__ import annotations

import json
import re

import pytest

from tests.real.tutorial import Played

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def test_the_tutorial_goes_from_one_replica_to_three_and_back_to_one(tutorial: Played) -> None:
    assert tutorial.status == 0, tutorial.said + tutorial.log[-3000:]
    assert json.loads(tutorial.log.splitlines()[-1])["message"] == "stopped"
    written = [turn["decision"] for turn in tutorial.turns if turn["outcome"] == "rescaled"]
    assert (written[0]["desired"], max(each["replicas"] for each in written), written[-1]["replicas"]) == (1, 3, 1)
    assert written[0]["sentence"] in tutorial.said, "among the events"
    assert re.search(r"^tiny +tiny +1 +\d/\d/\d +3 +Active", tutorial.said, re.MULTILINE)
