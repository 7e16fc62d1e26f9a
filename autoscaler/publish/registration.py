"""Whether the API server hands HPAs' questions on to us: it knows one server of external metrics, whoever that is."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from autoscaler.publish.metrics_api import GROUP_VERSION
from autoscaler.publish.numbers import METRIC, PublishedNumbers
from cluster.api import Api, StatusError, UnansweredError

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 60.0


async def obstacle(api: Api) -> str:
    """What keeps HPAs from asking us, with what to do; "" if nothing does, or nobody can say."""
    try:
        resources = (await api.call("GET", f"/apis/{GROUP_VERSION}")).get("resources") or ()
    except UnansweredError:
        return ""
    except StatusError as error:
        if error.status == 404:
            return f"no HPA can ask for it, since {GROUP_VERSION} is not registered: apply manifests/publish/hpa"
        return (
            f"no HPA can ask for it, since whoever serves {GROUP_VERSION} is not reached ({error}): mend "
            "what its APIService names, such as an expired certificate"
        )
    if METRIC not in {each.get("name") for each in resources}:
        return (
            f"no HPA can ask for it, since {GROUP_VERSION} is served by another: publish by KEDA's external scaler "
            f"(manifests/publish/keda), by a rule of that other one on the gauge {METRIC}, or set mode Active"
        )
    return ""


async def look_on(api: Api, numbers: PublishedNumbers) -> None:
    """Look now and then, for as long as it runs; whoever publishes tells of it."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        problem = await obstacle(api)
        if problem != numbers.problem:
            log.log(logging.WARNING if problem else logging.INFO, problem or "HPAs can ask for the numbers again")
        numbers.problem = problem
