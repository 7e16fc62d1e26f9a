"""What the documents show must be there: links, files, commands with their options, settings that parse."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

import preheat
from policies.scaling.resource import KIND, VLLMAutoscaler
from tests.checkout import PACKAGES, ROOT, files, make_targets

PAGES = sorted(path for path in files(".md") if not path.is_relative_to(ROOT / "tests" / "data"))
FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
OUR_FILE = re.compile(rf"`((?:{'|'.join(PACKAGES)}|tests|docs|manifests|benchmarks)/[\w./-]+)`")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, *languages: str) -> Iterator[str]:
    return (body for language, body in FENCE.findall(page.read_text()) if language in languages)


def anchors(page: Path) -> set[str]:
    """Headings as a repository's web page turns them into anchors."""
    titles = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_links_inside_the_checkout_resolve(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue  # elsewhere: not ours to fetch in a test
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading in {target.name}"


@pages
def test_files_named_in_the_text_exist(page: Path) -> None:
    missing = [name for name in OUR_FILE.findall(page.read_text()) if not (ROOT / name).exists()]
    assert missing == []


@pages
def test_make_targets_shown_exist(page: Path) -> None:
    shown = re.findall(r"(?:`|^|&& )make((?: [a-z][a-z-]*)+)", page.read_text(), re.MULTILINE)
    assert {target for targets in shown for target in targets.split()} <= set(make_targets())


@pages
def test_commands_shown_have_these_subcommands_and_options(page: Path) -> None:
    text = page.read_text()
    bodies = (body.replace("\\\n", " ") for body in blocks(page, "sh", "bash", "console", "shell"))
    lines = [line for body in bodies for line in body.splitlines()]
    for shown in [*re.findall(r"`(preheat [^`]+)`", text), *lines]:
        command = re.search(r"(?:^|\s|/)(preheat .*)", shown.split(" #")[0].lstrip("$ "))
        if command and not shown.lstrip().startswith("#"):
            assert_known(command[1])


def assert_known(shown: str) -> None:
    """The words of a synopsis: brackets mark what may be left out."""
    words = shlex.split(shown.replace("[", " ").replace("]", " ").replace("…", " "))[1:]
    group: click.Command = preheat.main
    while isinstance(group, click.Group) and words and not words[0].startswith("-"):
        found = group.get_command(click.Context(group), words[0])
        assert found is not None, f"{shown}: there is no `preheat {words[0]}`"
        group, words = found, words[1:]
    context = click.Context(group)
    known = {option for parameter in group.get_params(context) for option in parameter.opts}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given <= known, f"{shown}: no such option"


@pages
def test_resources_shown_are_valid(page: Path) -> None:
    for body in blocks(page, "yaml"):
        for document in yaml.safe_load_all(body):
            if isinstance(document, dict) and document.get("kind") == KIND:
                VLLMAutoscaler.model_validate(document)


@pages
def test_python_shown_parses(page: Path) -> None:
    for body in blocks(page, "python"):
        ast.parse(body)
