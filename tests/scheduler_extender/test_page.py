"""docs/extender.md says what the program takes and tells."""

from __future__ import annotations

import re
from pathlib import Path

from scheduler_extender.config import load
from tests.checkout import ROOT
from tests.scheduler_extender.worlds import Served, knowing

PAGE = (ROOT / "docs" / "extender.md").read_text()


def documented() -> set[str]:
    """A cell may hold several, the later ones by their endings."""
    names = set()
    for cell in re.findall(r"^\| (`preheat_extender_[^|]*) \|", PAGE, re.MULTILINE):
        first, *more = re.findall(r"`(\w+)`", cell)
        names |= {first, *(f"preheat_extender{ending}" for ending in more)}
    return names


def test_every_metric_is_on_the_page_and_every_metric_of_the_page_is_told() -> None:
    with Served(knowing()) as served:
        _, text = served.get("/metrics")
    told = {name for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE)}
    told = {name for name in told if not name.endswith("_created")}
    # Those of the watch are told where there is one.
    assert documented() - told == {"preheat_extender_watch_age_seconds", "preheat_extender_watch_failures"}
    assert told <= documented()


def test_the_configuration_of_the_page_is_taken(tmp_path: Path) -> None:
    config, products = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "extender.yaml").write_text(config)
    (tmp_path / "products.yaml").write_text(products)
    (tmp_path / "models.json").write_text('{"models": []}')
    made = load(tmp_path / "extender.yaml")
    assert made.settings == made.settings.model_validate(
        {"productsFile": "products.yaml", "modelsFile": "models.json"} | made.settings.model_dump(include={"placement"})
    )
    assert made.products.find("Our-Board-2") is not None


def test_every_reason_of_an_unanswered_question_is_on_the_page() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "scheduler_extender").glob("*.py"))
    reasons = set(re.findall(r'(?:NoAnswerError\(\s*|unanswered\.labels\(verb, )"([a-z-]+)"', sources))
    assert len(reasons) >= 10
    (listed,) = re.findall(r"`reason` of an unanswered question: (.*?)\n\n", PAGE, re.DOTALL)
    assert reasons == set(re.findall(r"`([a-z-]+)`", listed))
