"""Objects by name, and by keys that each of them has, so that nobody leafs through thousands at every tick."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Store(Generic[T]):
    """What a watch shows; the keys are labels, or an owner."""

    def __init__(self, keys_of: Callable[[T], Iterable[Hashable]]) -> None:
        self._keys_of = keys_of
        self._named: dict[str, T] = {}
        self._under: dict[Hashable, set[str]] = {}

    def get(self, name: str) -> T | None:
        return self._named.get(name)

    def names(self) -> Iterable[str]:
        return self._named.keys()

    def under(self, key: Hashable) -> list[T]:
        return [self._named[name] for name in self._under.get(key, ())]

    def number_under(self, key: Hashable) -> int:
        return len(self._under.get(key, ()))

    def all(self) -> list[T]:
        return list(self._named.values())

    def put(self, name: str, item: T) -> None:
        self.drop(name)
        self._named[name] = item
        for key in self._keys_of(item):
            self._under.setdefault(key, set()).add(name)

    def drop(self, name: str) -> None:
        item = self._named.pop(name, None)
        if item is None:
            return
        for key in self._keys_of(item):
            names = self._under[key]
            names.discard(name)
            if not names:
                del self._under[key]

    def __len__(self) -> int:
        return len(self._named)
