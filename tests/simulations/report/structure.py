"""What an HTML parser can say of a report: what a browser would fetch, run, or fail to find."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import orjson

VOID = {"meta", "link", "img", "br", "hr", "input"}
FETCHING = {"src", "srcset", "data", "poster", "action", "background"}


class Structure(HTMLParser):
    """A page taken apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.tags: Counter[str] = Counter()
        self.headings: list[str] = []
        self.text = ""
        self.styles = ""
        self._json = ""
        self._open: list[str] = []
        self._kinds: list[str | None] = []
        self.feed(page)
        self.close()
        if self._open:
            self.problems.append(f"never closed: {self._open}")
        self.problems += [f"id {name} comes {count} times" for name, count in self.ids.items() if count > 1]
        self.problems += [f"#{link} leads nowhere" for link in self.links if link not in self.ids]
        if re.search(r"@import|url\((?!#)|https?:", self.styles):
            self.problems.append("a style fetches something")
        self.charts: list[dict[str, Any]] = orjson.loads(self._json)
        self.problems += [f"no figure for {each['at']}" for each in self.charts if each["at"] not in self.ids]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags[tag] += 1
        if (name := given.get("id")) is not None:
            self.ids[name] += 1
        for name, value in attrs:
            if name.startswith("on") or name in FETCHING:
                self.problems.append(f"<{tag} {name}={value}>")
        if (href := given.get("href")) is not None:
            if href.startswith("#"):
                self.links.append(href[1:])
            elif href != "data:,":
                self.problems.append(f"<{tag} href={href}>")
        if tag not in VOID:
            self._open.append(tag)
            self._kinds.append(given.get("type"))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes what is not open")
        if self._kinds:
            self._kinds.pop()

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            if self._kinds[-1] == "application/json":
                self._json += data
        elif inside == "style":
            self.styles += data
        else:
            self.text += data
            if inside == "h2":
                self.headings.append(data)
