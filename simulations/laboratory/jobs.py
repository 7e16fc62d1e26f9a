"""Many replays at once: one after the other here, in processes, or on a Ray cluster.

What all tasks share, a trace above all, travels once to each worker. Results come as they are done, with the number
of their task, so what is made of them must not depend on their order.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any, TypeVar

from cluster.files import ConfigError

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

Jobs = int | str
"""So many processes, or the address of a Ray cluster."""


def jobs(text: str) -> Jobs:
    """What `--jobs` says: a number of processes, or `ray://HOST:PORT`."""
    if text.startswith("ray://") and len(text) > len("ray://"):
        return text
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise ConfigError((f"--jobs is '{text}': give a number of processes, 1 or more, or ray://HOST:PORT",))


def done(work: Callable[[C, T], R], shared: C, tasks: Sequence[T], jobs: Jobs) -> Iterator[tuple[int, R]]:
    """`work(shared, task)` of every task, with its place among them; module-level functions only."""
    if isinstance(jobs, str):
        yield from _on_ray(work, shared, tasks, jobs)
    elif min(jobs, len(tasks)) <= 1:
        for number, task in enumerate(tasks):
            yield number, work(shared, task)
    else:
        yield from _in_processes(work, shared, tasks, min(jobs, len(tasks)))


_shared: Any = None
"""In a worker process: what its tasks share."""


def _receive(shared: Any) -> None:
    global _shared
    _shared = shared


def _work(work: Callable[[Any, T], R], task: T) -> R:
    return work(_shared, task)


def _in_processes(work: Callable[[C, T], R], shared: C, tasks: Sequence[T], processes: int) -> Iterator[tuple[int, R]]:
    # Spawned, not forked: a progress bar has threads, which a fork would leave behind half alive.
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawning, initializer=_receive, initargs=(shared,)) as pool:
        pending = {pool.submit(_work, work, task): number for number, task in enumerate(tasks)}
        try:
            while pending:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    yield pending.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _on_ray(work: Callable[[C, T], R], shared: C, tasks: Sequence[T], address: str) -> Iterator[tuple[int, R]]:
    try:
        ray = importlib.import_module("ray")
    except ModuleNotFoundError:
        raise ConfigError(
            (f"--jobs {address} needs 'ray', which is not installed: pip install 'preheat[ray]'",)
        ) from None
    try:
        with warnings.catch_warnings():  # what it warns of before it gives up is said below, once
            warnings.simplefilter("ignore")
            ray.init(address=address, logging_level=logging.ERROR)
    except (ConnectionError, OSError, RuntimeError) as error:
        raise ConfigError((f"--jobs {address}: no Ray cluster answers there ({_first_line(error)})",)) from error
    try:
        remote, kept = ray.remote(work), ray.put(shared)
        pending = {remote.remote(kept, task): number for number, task in enumerate(tasks)}
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1)
            for reference in ready:
                yield pending.pop(reference), ray.get(reference)
    finally:
        ray.shutdown()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
