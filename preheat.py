"""The command line, and nothing else: each subcommand parses, calls one function, and prints its answer."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

import click


@click.group()
@click.version_option(package_name="preheat")
def main() -> None:
    """Scale vLLM ahead of the load, place it where it fits, and replay what any policy would have cost."""


_kubeconfig = click.option("--kubeconfig", metavar="FILE", help="Else KUBECONFIG is read, else the pod's own account.")
_context = click.option("--context", metavar="NAME", help="Context of the kubeconfig.")
_file = click.Path(path_type=Path)
_credentials = click.option(
    "--credentials",
    type=_file,
    default="/etc/preheat/credentials",
    show_default=True,
    metavar="DIR",
    help="Of the files that the cluster's resources name, only those below it are read.",
)
_port = click.IntRange(0, 65_535)


class _Finite(click.FloatRange):
    """A number, of a range if one is given; `nan` and `inf` are none, though a float may be either."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


_finite = _Finite()


def _mend(problems: tuple[str, ...] | list[str]) -> NoReturn:
    """A user's mistake: what it is, one sentence a line, and exit status 2."""
    for problem in problems:
        click.echo(problem, err=True)
    sys.exit(2)


@main.command()
@click.option("--config", type=_file, metavar="FILE", help="One VLLMAutoscaler a document; else those of the cluster.")
@click.option("--namespace", metavar="NAME", help="Follow the resources of this namespace only.")
@click.option(
    "--leader-elect/--no-leader-elect", default=None, help="Of several replicas one writes; on without --config."
)
@_kubeconfig
@_context
@click.option("--host", default="127.0.0.1", show_default=True, help="Where /metrics, /healthz, /readyz are served.")
@click.option("--port", type=_port, default=8080, show_default=True)
@click.option("--tick", type=_Finite(0.1, 300), default=15, show_default=True, help="Seconds between decisions.")
@click.option("--journal", type=_file, metavar="DIR", help="Write every decision with its inputs there.")
@_credentials
@click.option("--metrics-api-port", type=_port, metavar="PORT", help="Serve external.metrics.k8s.io to HPAs there.")
@click.option(
    "--keda-port", type=_port, metavar="PORT", help="Serve KEDA's external scaler there; needs preheat[keda]."
)
@click.option("--wake-port", type=_port, metavar="PORT", help="Serve POST /wake/NAMESPACE/NAME there.")
@click.option("--tls-cert", type=_file, metavar="FILE", help="The certificate that all of these show.")
@click.option("--tls-key", type=_file, metavar="FILE", help="The key of the certificate.")
@click.option("--verbose", is_flag=True, help="Log every decision, not only what is new.")
def autoscaler(
    config: Path | None,
    namespace: str | None,
    leader_elect: bool | None,
    kubeconfig: str | None,
    context: str | None,
    host: str,
    port: int,
    tick: float,
    journal: Path | None,
    credentials: Path,
    verbose: bool,
    **publish: Any,
) -> None:
    """Scale the targets of a cluster's VLLMAutoscaler resources, or of a file's, ahead of their load."""
    from autoscaler.config import load
    from cluster import logs
    from cluster.files import ConfigError

    logs.configure(verbose=verbose)
    try:
        if config and namespace:
            _mend(["--namespace chooses among the cluster's resources, and --config names a file: give one of the two"])
        resources = load(config) if config else None
        from autoscaler import program  # takes a second or two: a mistake in the file is told before it
        from autoscaler.publish.servers import PublishOptions

        others = PublishOptions(**publish)
        place = (resources, kubeconfig, context, host, port)
        program.run(program.Options(*place, tick, journal, namespace, leader_elect, others, credentials))
    except ConfigError as error:
        _mend(error.problems)


@main.command()
@click.option("--host", default="0.0.0.0", show_default=True, help="Where schedulers ask, and /metrics, /readyz are.")
@click.option("--port", type=_port, default=8888, show_default=True)
@click.option("--inventory", type=_file, metavar="FILE", help="What `kubectl get nodes,pods -A -o json` wrote.")
@click.option("--config", type=_file, metavar="FILE", help="How to judge; all of it has defaults.")
@_kubeconfig
@_context
@click.option("--tls-cert", type=_file, metavar="FILE", help="Serve HTTPS with this certificate.")
@click.option("--tls-key", type=_file, metavar="FILE", help="The key of the certificate.")
@click.option("--client-ca", type=_file, metavar="FILE", help="Ask clients for a certificate of this authority.")
@click.option("--verbose", is_flag=True, help="Log also what is of no interest as a rule.")
def extender(verbose: bool, **options: Any) -> None:
    """Tell kube-scheduler where a pod's GPUs are linked and its model fits."""
    from cluster import logs
    from cluster.files import ConfigError

    logs.configure(verbose=verbose)
    from scheduler_extender import program

    try:
        program.run(program.Options(**options))
    except ConfigError as error:
        _mend(error.problems)


@main.command("explain-pod")
@click.argument("pod")
@click.option("--inventory", type=_file, metavar="FILE", help="What `kubectl get nodes,pods -A -o json` wrote.")
@click.option("--config", type=_file, metavar="FILE", help="The extender's; all of it has defaults.")
@_kubeconfig
@_context
def explain_pod(
    pod: str, inventory: Path | None, config: Path | None, kubeconfig: str | None, context: str | None
) -> None:
    """Tell what every node would say to POD (a FILE, or NAMESPACE/NAME), with numbers and what would make it fit."""
    from cluster.files import ConfigError
    from scheduler_extender.explain_pod import explain_pod as story

    try:
        told = story(pod, inventory_file=inventory, config=config, kubeconfig=kubeconfig, context=context)
        click.echo(asyncio.run(told))
    except ConfigError as error:
        _mend(error.problems)


@main.group()
def model() -> None:
    """Tell the extender of models that it does not know."""


@model.command("add")
@click.argument("file", type=_file)
@click.option("--name", metavar="NAME", help="What pods serve it by; else the file's own `_name_or_path`.")
@click.option(
    "--table", type=_file, default="models.json", show_default=True, metavar="FILE", help="Which `modelsFile` names."
)
@click.option("--weights-gib", type=_finite, metavar="GIB", help="The checkpoint's size; wins over the count.")
def model_add(file: Path, **options: Any) -> None:
    """Read FILE, the config.json of a Hugging Face checkpoint, into a table of models."""
    from cluster.files import ConfigError
    from scheduler_extender.model_add import add_model

    try:
        click.echo(add_model(file, **options))
    except ConfigError as error:
        _mend(error.problems)


_as_json = click.option("--json", "as_json", is_flag=True, help="The same as JSON.")


def _diagnosed(findings: Any, as_json: bool) -> None:
    """Every line of a doctor; exit status 2 where something does not work."""
    if as_json:
        from json import dumps

        click.echo(dumps(findings.as_json(), indent=2))
    else:
        click.echo(findings.text())
    if findings.failed:
        sys.exit(2)


@main.group(invoke_without_command=True)
@click.option("--config", type=_file, metavar="FILE", help="One VLLMAutoscaler a document; else those of the cluster.")
@click.option("--namespace", metavar="NAME", help="The resources, and the autoscaler, of this namespace only.")
@click.option("--home", default="preheat-system", show_default=True, metavar="NAME", help="Where the autoscaler runs.")
@click.option("--tick", "tick_seconds", type=_finite, default=15, show_default=True, help="The autoscaler's.")
@_credentials
@_kubeconfig
@_context
@_as_json
@click.pass_context
def doctor(click_context: click.Context, /, as_json: bool, **options: Any) -> None:
    """Say what keeps the autoscaler, or another part that is named, from its work: the whole chain, link by link."""
    if click_context.invoked_subcommand is None:
        from autoscaler.doctor import Asked, examine

        _diagnosed(asyncio.run(examine(Asked(**options))), as_json)


@doctor.command("extender")
@click.option("--url", metavar="URL", help="Of the extender: has a scheduler asked it lately?")
@click.option("--ca", type=_file, metavar="FILE", help="The authority of the extender's certificate.")
@click.option("--minutes", type=_finite, default=10, show_default=True, help="How long ago is lately.")
@click.option("--scheduler-config", type=_file, metavar="FILE", help="kube-scheduler's, or a ConfigMap with it.")
@click.option("--inventory", type=_file, metavar="FILE", help="What `kubectl get nodes,pods -A -o json` wrote.")
@_kubeconfig
@_context
@_as_json
def doctor_extender(as_json: bool, **options: Any) -> None:
    """Is the extender asked, is it heeded, and does it see what it judges by."""
    from cluster.files import ConfigError
    from scheduler_extender.doctor import Asked, examine

    try:
        findings = asyncio.run(examine(Asked(**options)))
    except ConfigError as error:
        _mend(error.problems)
    _diagnosed(findings, as_json)


@main.command()
@click.argument("file", type=_file)
@_kubeconfig
@_context
def check(file: Path, kubeconfig: str | None, context: str | None) -> None:
    """Say all that is wrong with a file, with the Prometheus it names, and with its targets."""
    from autoscaler.check import check as check_all

    report = asyncio.run(check_all(file, kubeconfig, context))
    for note in report.notes:
        click.echo(note)
    if report.problems:
        _mend(report.problems)
    click.echo(f"{file}: nothing is wrong")


@main.command()
def crd() -> None:
    """Print the CustomResourceDefinition of VLLMAutoscaler, for `kubectl apply -f -`."""
    import yaml

    from policies.scaling.crd import definition

    click.echo("# Made by `preheat crd` from the model that reads the resource: change that, then `make crds`.")
    click.echo(yaml.safe_dump(definition(), sort_keys=False, width=110, allow_unicode=True), nl=False)


@main.command()
@click.argument("name", required=False)
@click.option("--namespace", metavar="NAME", help="Only what is raised there; else everywhere.")
@_kubeconfig
@_context
def release(name: str | None, namespace: str | None, kubeconfig: str | None, context: str | None) -> None:
    """Give back the floors that mode Floor has raised: all, or those of the VLLMAutoscaler NAME ([NAMESPACE/]NAME)."""
    from autoscaler.release import release as give_back
    from cluster.files import ConfigError

    try:
        for line in asyncio.run(give_back(name, namespace, kubeconfig, context)):
            click.echo(line)
    except ConfigError as error:
        _mend(error.problems)


@main.command()
@click.argument("target")
@click.option("--at", metavar="TIME", help="ISO 8601 (UTC unless it says otherwise) or unix seconds; else the last.")
@click.option("--journal", type=_file, required=True, metavar="DIR", help="What `preheat autoscaler --journal` wrote.")
def explain(target: str, at: str | None, journal: Path) -> None:
    """Tell why TARGET ([NAMESPACE/]NAME) was scaled as it was, at a time or last."""
    from autoscaler.explain import explain as story
    from cluster.files import ConfigError

    try:
        click.echo(story(journal, target, at))
    except ConfigError as error:
        _mend(error.problems)


@main.command()
@click.option("--out", type=_file, default="demo", show_default=True, metavar="DIR", help="Where report.html goes.")
def demo(out: Path) -> None:
    """An hour of real traffic under three autoscalers, on a simulated fleet: a table, and DIR/report.html."""
    try:
        from rich.console import Console

        from simulations.demo import play
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        _mend([f"the demo needs '{missing}', which is not installed: pip install 'preheat[sim]'"])
    from autoscaler.loop import turn
    from policies.scaling.history import History
    from policies.scaling.policy import ScalingPolicy
    from simulations.live import LiveFleet

    async def autoscale(fleet: LiveFleet, policy: ScalingPolicy) -> None:
        history = History()
        while fleet.next_tick():
            made = await turn(fleet, history, policy)
            history = made.history
            if made.decision is not None:
                fleet.note(made.decision)

    try:
        report = play(out, autoscale, Console())
    except OSError as error:
        _mend([f"--out {out} cannot be written: {error.strerror or error}"])
    click.echo(f"{report} shows it all: open it in a browser")


_WORLD = (
    click.option(
        "--engine", required=True, metavar="NAME|FILE", help="What a replica runs on; a wrong name lists all."
    ),
    click.option("--slo-ttft", type=_finite, required=True, metavar="S", help="Seconds promised to the first token."),
    click.option("--slo-tpot", type=_finite, required=True, metavar="S", help="Seconds promised a token after it."),
    click.option("--attainment", type=_finite, default=0.99, show_default=True, help="To which share of the requests."),
    click.option("--cold-start-jitter", metavar="S|FILE", help="± so many seconds, or a file of measured cold starts."),
    click.option("--min", type=int, default=1, show_default=True, metavar="N", help="Fewest replicas."),
    click.option("--max", type=int, required=True, metavar="N", help="Most replicas."),
    click.option("--start", type=int, metavar="N", help="Ready at time 0; else the fewest, or a schedule's first."),
    click.option("--tick", type=_finite, default=15.0, show_default=True, metavar="S", help="Between two decisions."),
    click.option(
        "--scrape-interval", type=_finite, default=15.0, show_default=True, metavar="S", help="0: instant values."
    ),
    click.option("--score-from", type=_finite, default=0.0, metavar="S", help="Score only what arrives from then on."),
    click.option("--clip-prompt", type=int, metavar="N", help="Cut longer prompts to so many tokens."),
    click.option("--grace", type=_finite, metavar="S", help="Kill a removed replica after so long, and requeue."),
    click.option(
        "--router", default="least-outstanding", show_default=True, help="Or round-robin, random, two-choices."
    ),
    click.option("--slots", type=int, metavar="N", help="How many replicas the free GPUs hold."),
    click.option("--client-timeout", type=_finite, metavar="S", help="Clients hang up without a first token."),
    click.option("--client-retries", type=int, default=0, metavar="N", help="How often one that hung up asks again."),
    click.option("--prefix-cache", is_flag=True, help="Keep answered prompts' KV blocks, where the trace tells them."),
    click.option("--spot-losses", type=_finite, default=0.0, metavar="N", help="Nodes lost per replica and hour."),
    click.option("--starts-at", metavar="TIME", help="Wall time of the trace's time 0, for schedules and crons."),
    click.option("--seed", default="0", show_default=True, metavar="N[,N…]", help="Several give intervals."),
)
_cold_start = click.option(
    "--cold-start", type=_finite, default=180.0, show_default=True, metavar="S", help="Created to ready."
)
_jobs = click.option("--jobs", default="1", show_default=True, metavar="N|ray://…", help="So many processes, or Ray.")
_policy = click.option(
    "--policy", "policies", multiple=True, metavar="NAME|FILE", help="preheat, static:N, hpa:target=16, hpa.yaml, …"
)
_metrics = click.option("--metrics", type=_file, metavar="FILE", help="Adapter rules, or `name: promql` pairs.")


def _world(command: Callable[..., None]) -> Callable[..., None]:
    """The options of `simulations.laboratory.settings.Settings`, the same for all that simulate."""
    for option in reversed(_WORLD):
        command = option(command)
    return command


@contextmanager
def _mended() -> Iterator[None]:
    """A user's mistake in a simulation is told in its sentences, and so is an extra that is not installed."""
    from cluster.files import ConfigError
    from policies.scaling.resource_reading import InvalidResourceError

    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        _mend([f"this needs '{missing}', which is not installed: pip install 'preheat[sim]'"])
    except (ConfigError, InvalidResourceError) as error:
        _mend(error.problems)


def _trace(text: str) -> Any:
    """A file, one of those shipped, or what a Prometheus counted."""
    from simulations.traces import TraceError, read, shipped_trace

    try:
        if not text.startswith("prometheus:"):
            return shipped_trace(text) if text == "azure2023_conv" and not Path(text).exists() else read(text)
        from cluster.errors import ClusterError
        from cluster.prometheus_trace import address, fetch
        from simulations.traces.rebuilt import rebuilt

        try:
            return rebuilt(asyncio.run(fetch(address(text, time.time()))))
        except ClusterError as error:
            _mend([f"{text}: {error}"])
    except TraceError as error:
        _mend([str(error)])


@main.command()
@click.argument("trace")
@click.argument("more", nargs=-1, metavar="[POLICY]…")
@_world
@_cold_start
@_policy
@_metrics
@click.option("--gpu-hour-price", type=_finite, metavar="P", help="For a column of dollars.")
@click.option("--json", type=_file, metavar="OUT", help="All figures.")
@click.option("--html", type=_file, metavar="OUT", help="A report that opens offline.")
@click.option(
    "--compare-cold-start", type=_finite, metavar="S", help="Replay with this one, too, side by side in the report."
)
@click.option("--decisions", type=_file, metavar="DIR", help="A CSV of decisions for each policy.")
@_jobs
def replay(
    trace: str,
    more: tuple[str, ...],
    policies: tuple[str, ...],
    metrics: Path | None,
    gpu_hour_price: float | None,
    json: Path | None,
    html: Path | None,
    compare_cold_start: float | None,
    decisions: Path | None,
    jobs: str,
    **world: Any,
) -> None:
    """What each policy would have done to the requests of TRACE, side by side.

    TRACE is a file, azure2023_conv, or prometheus:URL?target=NAMESPACE/NAME&from=…&to=…
    """
    with _mended():
        from simulations.laboratory.commands import ReplayRequest, replay_command
        from simulations.laboratory.settings import Settings

        asked = ReplayRequest(
            settings=Settings(**world),
            policies=(*policies, *more),
            metrics=metrics,
            gpu_hour_price=gpu_hour_price,
            json=json,
            html=html,
            compare_cold_start=compare_cold_start,
            decisions=decisions,
            jobs=jobs,
            command=shlex.join(["preheat", *sys.argv[1:]]),
        )
        replay_command(asked, _trace(trace))


@main.command()
@click.argument("file", type=_file, metavar="FILE|-")
@click.option("--prometheus", metavar="URL", help="Where vLLM's metrics are, if the object does not say it.")
@_metrics
def migrate(file: Path, prometheus: str | None, metrics: Path | None) -> None:
    """Make a VLLMAutoscaler of an HPA or a KEDA ScaledObject, and say what each of its lines became."""
    with _mended():
        from cluster.files import documents, parsed
        from simulations.policy_files.adapter import read_metrics
        from simulations.policy_files.migrate import REMEDY, migrated

        names = read_metrics(metrics) if metrics else None
        stated = parsed(sys.stdin.read(), "-", REMEDY) if str(file) == "-" else documents(file, REMEDY)
        click.echo(migrated(stated, str(file), url=prometheus, metrics=names), nl=False)


@main.command()
@click.argument("trace")
@_world
@_cold_start
@click.option("--json", type=_file, metavar="OUT", help="Both answers.")
def size(trace: str, json: Path | None, **world: Any) -> None:
    """The fewest replicas that keep the objective for TRACE: at all times, and by hour of the day."""
    with _mended():
        from simulations.laboratory.commands import SizeRequest, size_command
        from simulations.laboratory.settings import Settings

        size_command(SizeRequest(settings=Settings(**world), json=json), _trace(trace))


@main.command()
@click.argument("trace")
@click.argument("more", nargs=-1, metavar="[POLICY]…")
@_world
@click.option("--cold-starts", default="60,180,420", show_default=True, metavar="S[,S…]", help="Seconds each.")
@_policy
@_metrics
@click.option("--out", type=_file, required=True, metavar="DIR", help="Where points are kept; the same one goes on.")
@_jobs
def sweep(
    trace: str,
    more: tuple[str, ...],
    cold_starts: str,
    policies: tuple[str, ...],
    metrics: Path | None,
    out: Path,
    jobs: str,
    **world: Any,
) -> None:
    """Replay TRACE over a grid of cold starts, policies and seeds; what is done is kept, and never done twice."""
    with _mended():
        from simulations.laboratory.commands import SweepRequest, sweep_command
        from simulations.laboratory.settings import Settings

        asked = SweepRequest(
            settings=Settings(**world),
            cold_starts=cold_starts,
            policies=(*policies, *more),
            out=out,
            metrics=metrics,
            jobs=jobs,
        )
        sweep_command(asked, _trace(trace))


if __name__ == "__main__":
    main()
