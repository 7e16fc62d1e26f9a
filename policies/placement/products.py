"""Which GPU products are linked how: a shipped table by product label and by cloud instance, and what is laid over it.

No label says how GPUs inside a node are linked; the product, and the board it is sold on, mostly does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from policies.placement.supply import Links

MIB: Final = 1 << 20
_FIELDS: Final = {"match", "links", "group", "fullUpTo", "memoryMib", "names", "instances", "why"}


class ProductTableError(ValueError):
    """A table of products cannot be used; the message names the row, the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Product:
    """One row."""

    match: re.Pattern[str]
    links: Links
    group: int | None = None
    """GPUs of a linked group, of a full mesh the largest board, of a cube its largest linked set."""
    full_up_to: int = 0
    """On a node of no more GPUs than this every pair is linked, whatever `links` says of larger ones."""
    memory_bytes: int | None = None
    names: tuple[str, ...] = ()
    """What clouds call it in their own labels."""
    instances: tuple[str, ...] = ()
    """Machine types that have nothing else."""
    why: str = ""
    source: str = "the shipped table"

    def linked(self, gpus: int) -> tuple[Links, int | None]:
        """How the GPUs of a node with so many are linked, and in groups of which size."""
        if gpus <= 1:
            return Links.FULL_MESH, 1
        if self.links is Links.NONE:
            return Links.NONE, 1
        if gpus <= self.full_up_to:
            return Links.FULL_MESH, gpus
        if self.links is Links.FULL_MESH:
            # More GPUs than the largest board: two boards, or a board unheard of.
            return (Links.FULL_MESH, gpus) if gpus <= (self.group or 0) else (Links.GROUPS, self.group)
        return self.links, self.group


@dataclass(frozen=True, slots=True)
class ProductTable:
    """Rows, those laid over it first."""

    rows: tuple[Product, ...]

    def find(self, product: str) -> Product | None:
        """By the label `nvidia.com/gpu.product`; what sharing and MIG append to it must be cut off before."""
        return next((row for row in self.rows if row.match.fullmatch(product)), None)

    def of_cloud(self, name: str) -> Product | None:
        return next((row for row in self.rows if name in row.names), None)

    def of_instance(self, instance_type: str) -> Product | None:
        return next((row for row in self.rows if instance_type in row.instances), None)

    def with_rows(self, document: object, *, source: str) -> ProductTable:
        """The same with a document of rows over it, as the shipped one is written.

        Raises `ProductTableError` where one cannot be used.
        """
        return ProductTable((*_rows(document, source), *self.rows))


@cache
def shipped_products() -> ProductTable:
    """The table that comes with us."""
    text = resources.files("policies.placement").joinpath("tables/products.json").read_text(encoding="utf-8")
    return ProductTable(tuple(_rows(json.loads(text), "the shipped table")))


def _rows(document: object, source: str) -> Sequence[Product]:
    rows = document.get("products") if isinstance(document, Mapping) else None
    if not isinstance(rows, list):
        raise ProductTableError(f"{source}: a table of products is an object with a list `products`")
    return [_row(row, f"{source}, row {number}", source) for number, row in enumerate(rows, 1)]


def _row(row: object, where: str, source: str) -> Product:
    if not isinstance(row, Mapping) or not isinstance(row.get("match"), str):
        raise ProductTableError(f"{where}: it needs `match`, the product's label or a regular expression of it")
    unknown = sorted(set(row) - _FIELDS)
    if unknown:
        raise ProductTableError(f"{where}: {unknown[0]} is not a field: choose of {', '.join(sorted(_FIELDS))}")
    try:
        match = re.compile(row["match"])
    except re.error as error:
        raise ProductTableError(f"{where}: match is no regular expression ({error}): escape its marks") from None
    try:
        links = Links(row.get("links", ""))
    except ValueError:
        raise ProductTableError(
            f"{where}: links is {row.get('links')!r}: choose one of {', '.join(sorted(Links))}"
        ) from None
    group = _count(row, "group", where)
    if links in (Links.FULL_MESH, Links.GROUPS) and group is None:
        raise ProductTableError(f"{where}: links is {links}: say in `group` how many GPUs are linked with each other")
    memory = _count(row, "memoryMib", where)
    return Product(
        match=match,
        links=links,
        group=group,
        full_up_to=_count(row, "fullUpTo", where) or 0,
        memory_bytes=None if memory is None else memory * MIB,
        names=_names(row, "names", where),
        instances=_names(row, "instances", where),
        why=str(row.get("why", "")),
        source=source,
    )


def _count(row: Mapping[str, Any], field: str, where: str) -> int | None:
    value = row.get(field)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ProductTableError(f"{where}: {field} is {value!r}: it must be a whole number above 0")
    return value


def _names(row: Mapping[str, Any], field: str, where: str) -> tuple[str, ...]:
    names = row.get(field, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ProductTableError(f"{where}: {field} must be a list of texts")
    return tuple(names)
