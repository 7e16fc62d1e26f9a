"""The report in a real browser: no error, nothing fetched, readable wide and narrow, light and dark, by any means.

A machine without a browser holds the same page to what a parser can see of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Browser, Page
from tests.simulations.report.compared import HOSTILE
from tests.simulations.report.structure import Structure

pytestmark = pytest.mark.browser

WIDE, NARROW = 1280, 390
LEAST_CONTRAST = 4.5
"""What WCAG 2.2 asks of text at level AA."""

LUMINANCE = """
const luminance = (color) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => {
    const share = v / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
"""


@asynccontextmanager
async def shown(browser: Browser, file: Path, width: int, *, dark: bool = False) -> AsyncIterator[Page]:
    """The page with every chart drawn; it may not have complained by the end."""
    async with browser.page(width=width, dark=dark) as page:
        await page.show(file)
        await page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        await page.run("charts.forEach((chart) => chart.draw())")
        await page.frames()
        yield page
        assert page.errors == []
        assert page.requests == [file.as_uri()]


def parsed(file: Path) -> None:
    """The other branch."""
    assert Structure(file.read_text("utf-8")).problems == []


def charts_of(file: Path) -> list[dict[str, Any]]:
    return Structure(file.read_text("utf-8")).charts


async def center(page: Page, script: str) -> dict[str, float]:
    """Of an element, scrolled into the middle of the window."""
    found: dict[str, float] = await page.run(
        f"(() => {{ const it = {script}; it.scrollIntoView({{ block: 'center' }});"
        "const box = it.getBoundingClientRect();"
        "return { x: box.x + box.width / 2, y: box.y + box.height / 2 }; })()"
    )
    await page.frames()
    return found


async def tip(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = await page.run(
        "(() => { const tip = document.getElementById('tip'), box = tip.getBoundingClientRect();"
        "return { hidden: tip.hidden, text: tip.innerText, inside: tip.hidden || (box.left >= 0 && box.top >= 0 "
        "&& box.right <= innerWidth && box.bottom <= innerHeight) }; })()"
    )
    return found


async def test_what_a_page_must_not_do_is_seen(browser: Browser | None, tmp_path: Path) -> None:
    """Else all that follows would prove nothing."""
    bad = '<img src="http://127.0.0.1:1/a.png"><script>missing();</script>'
    if browser is None:
        whole = Structure(f'{bad}<script type="application/json">[]</script>')
        assert whole.problems == ["<img src=http://127.0.0.1:1/a.png>"]
        return
    file = tmp_path / "bad.html"
    file.write_text(bad)
    async with browser.page(width=WIDE) as page:
        await page.show(file)
        assert any("missing is not defined" in error for error in page.errors)
        assert "http://127.0.0.1:1/a.png" in page.requests


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
async def test_every_chart_is_drawn_and_nothing_reaches_beyond_the_page(
    browser: Browser | None, report: Path, width: int, dark: bool
) -> None:
    if browser is None:
        return parsed(report)
    async with shown(browser, report, width, dark=dark) as page:
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")
        drawn = await page.run("charts.map((c) => c.svg.querySelectorAll('path, circle').length)")
        assert len(drawn) == len(charts_of(report))
        assert min(drawn) > 1
        assert not await page.run("/NaN|Infinity|undefined/.test(document.querySelector('main').innerHTML)")
        # What a chart writes stays within its card; it is cut nowhere.
        beyond = await page.run(
            "[...document.querySelectorAll('.chart > svg text')].filter((text) => { const box = "
            "text.getBoundingClientRect(), card = text.closest('.chart').getBoundingClientRect();"
            "return box.left < card.left || box.right > card.right; }).map((text) => text.textContent)"
        )
        assert beyond == []
        # A table that is too wide scrolls inside its own frame.
        assert await page.run(
            "[...document.querySelectorAll('.table')].every((t) => t.getBoundingClientRect().right <= innerWidth)"
        )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_what_is_written_stands_out_from_its_ground(browser: Browser | None, report: Path, dark: bool) -> None:
    if browser is None:
        return parsed(report)
    async with shown(browser, report, WIDE, dark=dark) as page:
        ground = await page.run("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(22, 24, 27)") is dark
        ratios: dict[str, float] = await page.run(
            f"(() => {{ {LUMINANCE} const style = getComputedStyle(document.documentElement);"
            "const of = (name) => style.getPropertyValue(name).trim();"
            "const on = ['--paper', '--card'];"
            "const names = ['--ink', '--soft', '--objective', ...Array.from({ length: 8 }, (_, i) => `--p${i}`)];"
            "return Object.fromEntries(names.flatMap((name) => "
            "on.map((ground) => [name + ground, contrast(of(name), of(ground))]))); })()"
        )
        assert {name: ratio for name, ratio in ratios.items() if ratio < LEAST_CONTRAST} == {}
        assert len(ratios) == 22


@pytest.mark.parametrize("width", [WIDE, NARROW])
async def test_pointing_at_a_chart_tells_the_moment_and_the_decision(
    browser: Browser | None, report: Path, width: int
) -> None:
    """By mouse where the page is wide, by finger where it is narrow."""
    if browser is None:
        return parsed(report)
    async with shown(browser, report, width) as page:
        at = await center(page, "document.querySelector('#replicas-0 > svg')")
        await page.point(at["x"], at["y"])
        told = await tip(page)
        assert not told["hidden"]
        assert told["inside"]
        assert "ready" in told["text"]
        sentences = next(each for each in charts_of(report) if each["at"] == "replicas-0")["said"]["sentences"]
        assert any(sentence in told["text"] for sentence in sentences)
        # All charts of the same moment show it.
        crossed = "charts.filter((c) => c.cross && c.cross.getAttribute('visibility') === 'visible').length"
        assert await page.run(crossed) > 1
        heading = await center(page, "document.querySelector('#latency')")
        await page.point(heading["x"], heading["y"])
        assert (await tip(page))["hidden"]


@pytest.mark.parametrize("width", [WIDE, NARROW])
async def test_one_chart_after_another_tells_its_own(browser: Browser | None, report: Path, width: int) -> None:
    if browser is None:
        return parsed(report)
    async with shown(browser, report, width) as page:
        for chart in ("#frontier-chart .dot", "#replicas-1 > svg", "#worst-0 > svg", "#frontier-chart .dot"):
            at = await center(page, f"document.querySelector('{chart}')")
            await page.point(at["x"], at["y"])
            told = await tip(page)
            assert not told["hidden"], chart
            assert ("GPU-hours" in told["text"]) == chart.endswith("dot")


@pytest.mark.parametrize("width", [WIDE, NARROW])
async def test_what_came_of_forecasts_and_of_the_budget_is_told_where_one_points(
    browser: Browser | None, report: Path, width: int
) -> None:
    if browser is None:
        return parsed(report)
    async with shown(browser, report, width) as page:
        for chart, parts in {
            "load-chart": ("foreseen", "arriving", "load that came"),
            "coverage-chart": ("preheat", "planned for", "90 %", " of "),
            "budget-chart": ("preheat", "static:2", " %"),
        }.items():
            at = await center(page, f"document.querySelector('#{chart} > svg')")
            await page.point(at["x"], at["y"])
            told = await tip(page)
            assert told["inside"], chart
            assert [part for part in parts if part not in told["text"]] == [], chart
        # Half of static:2's requests miss: the axis goes on beyond all of the budget, and the line leaves it.
        ticks = "[...document.querySelectorAll('#budget-chart > svg text')].map((text) => text.textContent)"
        assert {"100 %", "200 %"} <= set(await page.run(ticks))
        await page.run("document.querySelector('#budget-chart > svg').focus()")
        await page.press("End")
        spent = next(each for each in charts_of(report) if each["at"] == "budget-chart")["series"][3]
        assert spent["short"] == "static:2"
        assert f"{round(100 * spent['y'][-1]):,} %" in (await tip(page))["text"]


@pytest.mark.parametrize("width", [WIDE, NARROW])
async def test_a_dot_tells_its_policy(browser: Browser | None, report: Path, width: int) -> None:
    if browser is None:
        return parsed(report)
    async with shown(browser, report, width) as page:
        at = await center(page, "document.querySelector('#frontier-chart .dot[aria-label^=\"preheat\"]')")
        await page.point(at["x"], at["y"])
        told = await tip(page)
        assert told["text"].startswith("preheat")
        assert "GPU-hours" in told["text"]
        assert told["inside"]


async def test_keys_alone_read_a_chart(browser: Browser | None, report: Path) -> None:
    if browser is None:
        return parsed(report)
    async with shown(browser, report, WIDE) as page:
        await page.run("document.querySelector('#replicas-1 > svg').focus()")
        await page.press("ArrowRight")
        first = await tip(page)
        await page.press("ArrowRight")
        second = await tip(page)
        assert not first["hidden"]
        assert first["inside"]
        assert first["text"] != second["text"]
        await page.press("Home")
        assert (await tip(page))["text"].startswith("00:00")
        await page.press("Escape")
        assert (await tip(page))["hidden"]
        await page.run("document.querySelector('#frontier-chart .dot').focus()")
        assert not (await tip(page))["hidden"]
        await page.press("Tab")
        assert await page.run("document.activeElement.matches('#frontier-chart .dot')")


async def test_a_line_is_shown_and_hidden_by_its_name(browser: Browser | None, report: Path) -> None:
    if browser is None:
        return parsed(report)
    async with shown(browser, report, WIDE) as page:
        lines = "document.querySelectorAll('#ttft-chart > svg g > path').length"
        before = await page.run(lines)
        names = "[...document.querySelectorAll('#ttft-chart button')].map((b) => b.getAttribute('aria-pressed'))"
        assert (await page.run(names)).count("true") == before == 4
        await page.run("document.querySelector('#ttft-chart button').focus()")
        await page.run("document.activeElement.click()")
        assert await page.run(lines) == before - 1


async def test_a_narrower_window_redraws_the_charts(browser: Browser | None, small_report: Path) -> None:
    if browser is None:
        return parsed(small_report)
    async with shown(browser, small_report, WIDE) as page:
        box = "document.querySelector('#load-chart > svg').getAttribute('viewBox')"
        before = await page.run(box)
        await page.send(
            "Emulation.setDeviceMetricsOverride", width=NARROW, height=900, deviceScaleFactor=1, mobile=False
        )
        await page.frames()
        await page.frames()
        assert await page.run(box) != before
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")


async def test_names_that_an_enemy_gives_are_text_and_nothing_else(browser: Browser | None, report: Path) -> None:
    if browser is None:
        return parsed(report)
    async with shown(browser, report, WIDE) as page:
        assert await page.run("document.title") == f"{HOSTILE} replayed"
        assert await page.run("document.images.length") == 0
        at = await center(page, "document.querySelector('#frontier-chart .dot[aria-label^=\"keda\"]')")
        await page.point(at["x"], at["y"])
        assert HOSTILE in (await tip(page))["text"]


@pytest.mark.parametrize("width", [WIDE, NARROW])
async def test_the_page_of_the_demo_is_as_good(browser: Browser | None, demo_report: Path, width: int) -> None:
    if browser is None:
        return parsed(demo_report)
    async with shown(browser, demo_report, width) as page:
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")
        assert min(await page.run("charts.map((c) => c.svg.querySelectorAll('path').length)")) > 1
