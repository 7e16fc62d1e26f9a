"""KEDA between none and some, and the HPA that it leaves the rest to."""

from __future__ import annotations

from tests.simulations.peers.seen import held, in_flight, named, replicas, seen, told


def test_five_waiting_a_replica_by_default_whatever_boots() -> None:
    """The External metric knows nothing of pending pods: what they will take is asked for again."""
    waiting = in_flight(4, 30)
    looks = [seen(15.0 * i, [waiting], desired=1 + i, booting=i) for i in range(2)]
    assert replicas(named("keda"), looks) == [4, 4]  # At most four, or twice as many, at once.
    assert replicas(named("keda"), [seen(0.0, [waiting], booting=3)]) == [6]


def test_four_pods_with_ten_waiting_in_all_are_two() -> None:
    shown = in_flight(4, 2.5)
    made = held(named("keda"), lambda now: shown, start=4, seconds=330)
    assert (made[19], made[21]) == (4, 2)


def test_within_a_tenth_of_the_target_nothing_changes() -> None:
    assert replicas(named("keda"), [seen(0.0, [in_flight(0, 5.5)] * 2)]) == [2]
    assert replicas(named("keda"), [seen(0.0, [in_flight(0, 5.6)] * 2)]) == [3]


def test_a_service_that_never_queues_goes_to_none_while_requests_run() -> None:
    """The chart's `idleReplicaCount: 0` with a trigger on waiting requests."""
    busy = in_flight(20, 0)
    assert replicas(named("keda:idle_at_zero=yes"), [seen(0.0, [busy])]) == [0]
    made = replicas(
        named("keda:idle_at_zero=yes,cooldown=60"),
        [seen(15.0 * i, [in_flight(20, 1 if i == 0 else 0)]) for i in range(8)],
    )
    assert made == [1, 1, 1, 1, 1, 1, 0, 1]  # At the first poll after the cooldown; between polls it does nothing.


def test_at_none_the_pods_metric_is_gone_and_never_wakes_it() -> None:
    looks = [seen(30.0 * i, [], desired=0) for i in range(20)]
    assert set(replicas(named("keda", least=0), looks)) == {0}


def test_a_routers_counter_wakes_it() -> None:
    looks = [seen(30.0 * i, [], desired=0, arrivals_total=total) for i, total in enumerate([0.0, 0.0, 5.0])]
    assert replicas(named("keda", least=0), looks) == [0, 0, 1]


def test_an_activation_threshold_is_to_be_exceeded() -> None:
    look = [seen(0.0, [in_flight(0, 3)])]
    assert replicas(named("keda:activation=3", least=0), look) == [0]
    assert replicas(named("keda:activation=2.9", least=0), look) == [1]


def test_hpa_by_name_reads_the_mean_of_the_pods() -> None:
    assert replicas(named("hpa"), [seen(0.0, [in_flight(30, 10), in_flight(10, 14)])]) == [4]
    assert replicas(named("hpa:metric=kv-cache,target=0.5"), [seen(0.0, [{"kv_cache_usage": 0.8}] * 2)]) == [4]
    assert replicas(named("hpa"), [seen(0.0, [in_flight(17)] * 2)]) == [2]


def test_a_new_hpa_does_not_shrink_before_its_window_is_through() -> None:
    """kube-controller-manager records the number it finds as its first recommendation."""
    idle = in_flight(0)
    made = held(named("hpa"), lambda now: idle, start=5, seconds=330)
    assert (made[20], made[21]) == (5, 1)
    made = held(named("hpa:down_window=60"), lambda now: idle, start=5, seconds=330)
    assert (made[3], made[4]) == (5, 1)


def test_golden_decisions_of_a_ramp() -> None:
    assert told("hpa") == HPA
    assert told("keda") == KEDA


HPA = "0:2 42:3 44:5 46:6 47:8 49:11 50:13 51:15 77:13 78:9 79:6 80:7 81:8 83:9 111:8 112:7 120:2"
KEDA = (
    "0:2 21:1 27:2 28:4 30:6 31:7 32:8 33:9 34:11 56:9 57:3 58:1 59:4 60:8 61:16 62:32 63:40 120:33 "
    "121:26 122:18 123:10 124:3 125:1 131:2 132:3 133:5 135:7 137:9 138:10 139:12 160:8 161:3 162:1 "
    "168:2 169:3 170:5 172:7 174:9 175:10 176:12 197:8 198:3 199:1"
)
