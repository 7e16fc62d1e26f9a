"""`preheat release`: what mode Floor has raised goes back to its owners, whether or not anybody runs any more."""

from __future__ import annotations

from cluster.errors import ClusterError
from cluster.files import ConfigError
from cluster.floors import Floor, Floors
from cluster.kubernetes import Cluster


async def release(name: str | None, namespace: str | None, kubeconfig: str | None, context: str | None) -> list[str]:
    """What was given back, one sentence each; a ConfigError with what could not be.

    `name` is that of a VLLMAutoscaler, `namespace/name` or the name alone.
    """
    if name and "/" in name:
        namespace = name.partition("/")[0]
    try:
        cluster = await Cluster.connect(kubeconfig, context)
    except ClusterError as error:
        raise ConfigError((str(error),)) from error
    try:
        floors = Floors(cluster.api)
        told, problems = [], []
        for floor in [each for each in await floors.raised(namespace) if _is_of(each, name)]:
            try:
                given = await floors.give_back(floor)
                told.append(f"{floor.subject}: {floor.holder.fewest} {floor.fewest} → {given.fewest}")
            except ClusterError as error:
                problems.append(f"{error}: try again")
    except ClusterError as error:
        raise ConfigError((str(error),)) from error
    finally:
        await cluster.close()
    if problems:
        raise ConfigError((*told, *problems))
    where = f"in namespace '{namespace}'" if namespace else "in the cluster"
    return told or [f"nothing is raised {where}" + (f" by {name}" if name else "")]


def _is_of(floor: Floor, name: str | None) -> bool:
    by = floor.raised.by if floor.raised else ""
    return name is None or name in (by, by.partition("/")[2])
