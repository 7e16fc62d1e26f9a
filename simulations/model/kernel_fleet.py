"""The event loop of a whole fleet, compiled: who gets which request, who hangs up, what is killed.

At one instant: iterations end first, then replicas become ready, then clients hang up, then requests arrive, then
iterations start. A replica is brought up to the present only when something looks at it. Which of the engines it runs
its row says; their KV caches are alike.
"""

from __future__ import annotations

from simulations.model.kernel import (
    ABANDONED,
    ALL_HANG_UPS,
    ARRIVAL,
    AT_RUNNING,
    ATTEMPTS,
    BLOCK_SHIFT,
    BLOCKS,
    BOOTING,
    BUCKETS,
    BY_PRIORITY,
    DOING,
    DONE,
    DRAWS,
    ENTERED,
    FATE,
    FIRST,
    FLEET,
    FOLLOWING,
    FREE_BLOCKS,
    GATEWAY,
    GATEWAY_HEAD,
    GENERATED,
    GONE,
    GONE_AT,
    HANG_UPS,
    HEAD,
    HELD,
    HISTOGRAM,
    HUNG_UP,
    IDLE,
    LAST,
    LEAST_OUTSTANDING,
    MAX_SEQUENCES,
    MIXED,
    NEVER,
    NEXT_ARRIVAL,
    NOWHERE,
    PARTIAL,
    PARTIAL_DONE,
    PATIENCE,
    PENDING,
    PRECEDING,
    PROMPT,
    RANDOM,
    READY,
    READY_AT,
    REFUSALS,
    REFUSED,
    REPLICA,
    REQUEUED,
    ROUND_ROBIN,
    ROUTER,
    RUNNING,
    SCHEDULED,
    SECOND,
    SEED,
    SLOTS,
    START,
    STATE,
    STRETCH,
    SUM_PICOSECONDS,
    SUM_SECONDS,
    TURN,
    VERSION,
    WAITING,
    Floats,
    Ints,
    compiled,
)
from simulations.model.kernel_blocks import blocks_for, let_go
from simulations.model.kernel_iteration import cut_stretch, rest, run, settle
from simulations.model.kernel_parts import drawn, put_by_priority, put_last, take_out


@compiled
def _least_outstanding(fleet: Ints, rows: Ints, due: Ints, load: Ints, requests: Ints, engines: Ints, now: int) -> int:
    """The ready replica that holds the fewest requests, the lowest slot among equals; -1 without any."""
    best = -1
    least = NEVER
    for r in range(fleet[SLOTS]):
        if due[r] <= now:
            run(rows[r], due, load, r, requests, engines[rows[r, VERSION]], now)
        if load[r] < least:
            least = load[r]
            best = r
    return best


@compiled
def _nth_ready(load: Ints, number: int) -> int:
    r = -1
    while number >= 0:
        r += 1
        if load[r] < NEVER:
            number -= 1
    return r


@compiled
def _chosen(fleet: Ints, rows: Ints, due: Ints, load: Ints, requests: Ints, engines: Ints, now: int) -> int:
    """The replica that the router gives the next request; -1 while none is ready."""
    if fleet[ROUTER] == LEAST_OUTSTANDING:
        return _least_outstanding(fleet, rows, due, load, requests, engines, now)
    slots = fleet[SLOTS]
    ready = 0
    for r in range(slots):
        if load[r] < NEVER:
            ready += 1
    if ready == 0:
        return -1
    if fleet[ROUTER] == ROUND_ROBIN:
        best = fleet[TURN] % slots
        while load[best] == NEVER:
            best = (best + 1) % slots
        fleet[TURN] = best + 1
    else:
        best = _nth_ready(load, drawn(fleet[SEED], fleet[DRAWS]) % ready)
        fleet[DRAWS] += 1
    if due[best] <= now:
        run(rows[best], due, load, best, requests, engines[rows[best, VERSION]], now)
    if fleet[ROUTER] != ROUND_ROBIN and fleet[ROUTER] != RANDOM and ready > 1:
        # The second of two choices is another than the first.
        other = _nth_ready(load, drawn(fleet[SEED], fleet[DRAWS]) % (ready - 1))
        fleet[DRAWS] += 1
        if other >= best:
            other += 1
            while load[other] == NEVER:
                other += 1
        if due[other] <= now:
            run(rows[other], due, load, other, requests, engines[rows[other, VERSION]], now)
        if load[other] < load[best]:
            best = other
    return int(best)


@compiled
def _hand_over(
    fleet: Ints, rows: Ints, due: Ints, load: Ints, requests: Ints, engines: Ints, index: int, now: int
) -> bool:
    """Gives a request to a ready replica; says whether there is one."""
    best = _chosen(fleet, rows, due, load, requests, engines, now)
    if best < 0:
        return False
    row = rows[best]
    requests[index, ENTERED] = now
    requests[index, REPLICA] = best
    if engines[0, BY_PRIORITY] == 0:
        put_last(row, HEAD, requests, index)
    else:
        put_by_priority(row, HEAD, requests, index)
    load[best] += 1
    if row[DOING] == IDLE:
        row[DOING] = PENDING
        row[START] = now
        due[best] = now + 1
    elif row[DOING] == STRETCH and row[HEAD] == index and row[RUNNING] < engines[row[VERSION], MAX_SEQUENCES]:
        due[best] = cut_stretch(row, now)
    return True


@compiled
def _receive(
    fleet: Ints, rows: Ints, due: Ints, load: Ints, requests: Ints, engines: Ints, index: int, now: int
) -> None:
    """Takes in a request, at the gateway where no replica is ready."""
    if not _hand_over(fleet, rows, due, load, requests, engines, index, now):
        put_last(fleet, GATEWAY_HEAD, requests, index)


@compiled
def _empty_gateway(fleet: Ints, rows: Ints, due: Ints, load: Ints, requests: Ints, engines: Ints, now: int) -> None:
    while fleet[GATEWAY] > 0:
        index = fleet[GATEWAY_HEAD]
        take_out(fleet, GATEWAY_HEAD, requests, index)
        _hand_over(fleet, rows, due, load, requests, engines, index, now)


@compiled
def _forget(requests: Ints, index: int) -> None:
    """Makes a request as it was before any replica had it."""
    request = requests[index]
    request[GENERATED] = 0
    request[ENTERED] = request[SCHEDULED] = request[FIRST] = request[LAST] = request[REPLICA] = -1
    request[PRECEDING] = NOWHERE


@compiled
def _withdraw(row: Ints, due: Ints, load: Ints, r: int, requests: Ints, engine: Ints, index: int, now: int) -> None:
    """Takes a request without its first token from the replica that holds it, now or when its iteration ends."""
    row[HANG_UPS] += 1
    if row[STATE] == READY:
        load[r] -= 1
    running = engine[AT_RUNNING]
    if requests[index, PRECEDING] != NOWHERE:
        was_head = row[HEAD] == index
        take_out(row, HEAD, requests, index)
        if row[DOING] == STRETCH and was_head and row[WAITING] > 0 and row[RUNNING] < engine[MAX_SEQUENCES]:
            due[r] = cut_stretch(row, now)
    elif row[DOING] == MIXED:
        place = row[RUNNING] - 1
        while row[running + place] != index:
            place -= 1
        row[running + place] = ABANDONED - index
        if row[PARTIAL] == index:
            row[PARTIAL] = ABANDONED - index
    else:
        # Between two iterations only a prompt computed in part, the last of the running, has no token yet.
        let_go(row, engine, index, row[PARTIAL_DONE])
        row[PARTIAL] = -1
        row[RUNNING] -= 1
    if row[DOING] == PENDING:
        rest(row, now)
        if row[DOING] == IDLE:
            due[r] = NEVER


@compiled
def _hang_up(
    fleet: Ints, rows: Ints, due: Ints, load: Ints, requests: Ints, engines: Ints, attempt: int, now: int
) -> None:
    """Looks whether the next client's patience with an attempt is over, and lets it ask again or go."""
    index = fleet[FLEET + attempt]
    fleet[FLEET + attempt] += 1
    r = requests[index, REPLICA]
    if r >= 0 and due[r] <= now:
        run(rows[r], due, load, r, requests, engines[rows[r, VERSION]], now)
    if requests[index, FATE] != HELD or requests[index, FIRST] >= 0:
        return
    fleet[ALL_HANG_UPS] += 1
    if r >= 0:
        _withdraw(rows[r], due, load, r, requests, engines[rows[r, VERSION]], index, now)
    else:
        take_out(fleet, GATEWAY_HEAD, requests, index)
    _forget(requests, index)
    if attempt + 1 < fleet[ATTEMPTS]:
        _receive(fleet, rows, due, load, requests, engines, index, now)
    else:
        requests[index, FATE] = HUNG_UP


@compiled
def _next_to_hang_up(fleet: Ints, requests: Ints) -> tuple[int, int]:
    """When the next client's patience ends, and with which attempt."""
    soonest, which = NEVER, 0
    for attempt in range(fleet[ATTEMPTS]):
        at = fleet[FLEET + attempt]
        while at < len(requests) and requests[at, FATE] >= DONE:
            at += 1
        fleet[FLEET + attempt] = at
        if at < len(requests):
            ends = requests[at, ARRIVAL] + (attempt + 1) * fleet[PATIENCE]
            if ends < soonest:
                soonest, which = ends, attempt
    return soonest, which


@compiled
def _next_ready(fleet: Ints, rows: Ints) -> int:
    soonest = NEVER
    for r in range(fleet[SLOTS]):
        if rows[r, STATE] == BOOTING:
            soonest = min(soonest, rows[r, READY_AT])
    return soonest


@compiled
def advance(fleet: Ints, rows: Ints, due: Ints, load: Ints, requests: Ints, engines: Ints, until: int) -> None:
    """Everything up to and at `until`, and the steps of stretches under way that have ended by then."""
    ready = _next_ready(fleet, rows)
    while True:
        index = fleet[NEXT_ARRIVAL]
        come = requests[index, ARRIVAL] if index < len(requests) else NEVER
        leave, attempt = NEVER, 0
        if fleet[ATTEMPTS] > 0:
            leave, attempt = _next_to_hang_up(fleet, requests)
        if min(come, ready, leave) > until:
            break
        if ready <= min(come, leave):
            for r in range(fleet[SLOTS]):
                if rows[r, STATE] == BOOTING and rows[r, READY_AT] <= ready:
                    rows[r, STATE] = READY
                    load[r] = 0
            _empty_gateway(fleet, rows, due, load, requests, engines, ready)
            ready = _next_ready(fleet, rows)
        elif leave <= come:
            _hang_up(fleet, rows, due, load, requests, engines, attempt, leave)
        else:
            fleet[NEXT_ARRIVAL] = index + 1
            if requests[index, PROMPT] > engines[0, BLOCKS] << engines[0, BLOCK_SHIFT]:
                requests[index, FATE] = REFUSED
                fleet[REFUSALS] += 1
            else:
                requests[index, FATE] = HELD
                _receive(fleet, rows, due, load, requests, engines, index, come)
    for r in range(fleet[SLOTS]):
        if due[r] <= until:
            run(rows[r], due, load, r, requests, engines[rows[r, VERSION]], until)
        if rows[r, DOING] == STRETCH:
            settle(rows[r], engines[rows[r, VERSION]], until)


@compiled
def kill(fleet: Ints, rows: Ints, due: Ints, load: Ints, requests: Ints, engines: Ints, r: int, now: int) -> None:
    """Takes a replica away with all it holds, which begins anew elsewhere: the running in order, then the waiting."""
    row = rows[r]
    running, waiting, following = row[RUNNING], row[WAITING], row[HEAD]
    row[STATE] = GONE
    row[GONE_AT] = now
    row[DOING] = IDLE
    row[RUNNING] = row[WAITING] = 0
    due[r] = load[r] = NEVER
    for place in range(running + waiting):
        index = row[engines[0, AT_RUNNING] + place] if place < running else following
        if place >= running:
            following = requests[index, FOLLOWING]
        if index >= 0:
            fleet[REQUEUED] += 1
            _forget(requests, index)
            _receive(fleet, rows, due, load, requests, engines, index, now)


@compiled
def blocks_in_use(row: Ints, engine: Ints, now: int) -> int:
    """KV blocks held, those of the iteration under way included."""
    used = engine[BLOCKS] - row[FREE_BLOCKS]
    if (row[DOING] == STRETCH or row[DOING] == MIXED) and row[START] < now:
        used += blocks_for(row, engine, 1)
    return int(used)


@compiled
def histograms(rows: Ints, columns: Ints, shown: Floats) -> Floats:
    """Of each replica's four histograms: sum in seconds, count, and the counts up to each of two buckets."""
    for r in range(len(rows)):
        for which in range(4):
            numbers = shown[r, which]
            numbers[0] = rows[r, SUM_SECONDS + which] + rows[r, SUM_PICOSECONDS + which] / SECOND
            first = BUCKETS + which * HISTOGRAM
            count = 0
            numbers[2] = numbers[3] = 0.0
            for bucket in range(HISTOGRAM):
                count += rows[r, first + bucket]
                if bucket == columns[which, 0]:
                    numbers[2] = count
                if bucket == columns[which, 1]:
                    numbers[3] = count
            numbers[1] = count
    return shown


@compiled
def in_hand(rows: Ints, slots: int) -> tuple[int, int]:
    """Requests that wait and that run, at all replicas together."""
    waiting, running = 0, 0
    for r in range(slots):
        waiting += rows[r, WAITING]
        running += rows[r, RUNNING]
    return waiting, running


@compiled
def any_gone(rows: Ints, slots: int) -> bool:
    gone = False
    for r in range(slots):
        gone = gone or rows[r, STATE] == GONE
    return gone
