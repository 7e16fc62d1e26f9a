"""A real Prometheus on 127.0.0.1 that scrapes what the tests put up, and can fail in the ways of a real one."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import requests
import trustme
import yaml

from tests.parts import build
from tests.parts.processes import Process, free_ports, wait_until

HOST = "127.0.0.1"
USERNAME, PASSWORD = "preheat", "open sesame"
# bcrypt of the password, as the web configuration wants it, at the lowest cost: it is no secret.
PASSWORD_HASH = "$2b$04$ASNqBQOYMx2xTRLYs7GsJu9uMlxu8PZhL8cvoROJsK7BcMVz6QImS"
SECONDS_TO_START = 60


@dataclass(frozen=True)
class Target:
    """Something to scrape: where, and the labels its series get."""

    address: str
    path: str = "/metrics"
    labels: Mapping[str, str] = field(default_factory=dict)

    def as_file_sd(self) -> dict[str, object]:
        return {"targets": [self.address], "labels": {"__metrics_path__": self.path, **self.labels}}


class Prometheus:
    """`start` it, hand it targets; `stop` and `start` again with or without what it stored."""

    def __init__(
        self,
        folder: Path,
        *,
        scrape_seconds: float = 1.0,
        tls: bool = False,
        basic_auth: bool = False,
        certificate_ends: datetime | None = None,
    ) -> None:
        self.folder = folder
        self._certificate_ends = certificate_ends
        self.binary = build.ensure(build.PROMETHEUS) / "prometheus"
        self.store = folder / "store"
        self.targets = folder / "targets"
        self.port = free_ports(1)[0]
        self.url = f"{'https' if tls else 'http'}://{HOST}:{self.port}"
        self.ca: Path | None = folder / "ca.crt" if tls else None
        self.auth = (USERNAME, PASSWORD) if basic_auth else None
        self.process: Process | None = None
        self.targets.mkdir(parents=True)
        self._write_config(scrape_seconds)
        self._write_web_config(tls=tls, basic_auth=basic_auth)

    def start(self) -> None:
        self.process = Process(
            "prometheus",
            [
                self.binary,
                f"--config.file={self.folder / 'prometheus.yaml'}",
                f"--web.config.file={self.folder / 'web.yaml'}",
                f"--web.listen-address={HOST}:{self.port}",
                f"--storage.tsdb.path={self.store}",
                "--log.level=warn",
            ],
            self.folder / "prometheus.log",
        )
        self.process.wait_ready(self._is_ready, within=SECONDS_TO_START)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None

    def freeze(self) -> None:
        """Accept connections and answer nothing, until `thaw`."""
        assert self.process is not None
        self.process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.signal(signal.SIGCONT)

    def restart(self, *, empty: bool = False) -> None:
        """Back on the same port; `empty`: as after a lost volume."""
        self.stop()
        if empty:
            shutil.rmtree(self.store)
        self.start()

    def watch(self, targets: Sequence[Target], *, group: str = "all") -> None:
        """Scrape these from now on, in place of the group's others; Prometheus takes them up within 5 s."""
        fresh = self.targets / f"{group}.new"
        fresh.write_text(json.dumps([target.as_file_sd() for target in targets]))
        fresh.replace(self.targets / f"{group}.json")

    def value(self, query: str) -> float | None:
        """Of an instant query that yields one number; None without any."""
        answer = self._get("/api/v1/query", query=query).json()
        assert answer["status"] == "success", answer
        results = answer["data"]["result"]
        assert len(results) <= 1, f"{query} yields {len(results)} series"
        return float(results[0]["value"][1]) if results else None

    def wait_value(self, query: str, least: float, *, within: float = 20) -> float:
        """Until the query yields at least this."""

        def reached() -> tuple[float] | None:
            value = self.value(query)
            return (value,) if value is not None and value >= least else None

        return wait_until(reached, within=within, what=f"{query} ≥ {least:g}", every=0.1)[0]

    def _get(self, path: str, **params: str) -> requests.Response:
        verify = True if self.ca is None else str(self.ca)
        return requests.get(f"{self.url}{path}", params=params, auth=self.auth, verify=verify, timeout=5)

    def _is_ready(self) -> bool:
        try:
            return self._get("/-/ready").status_code == 200
        except requests.exceptions.SSLError:
            return self._certificate_ends is not None  # it is there, and nobody can trust it
        except requests.RequestException:
            return False

    def _write_config(self, scrape_seconds: float) -> None:
        config = {
            "global": {
                "scrape_interval": f"{scrape_seconds * 1000:.0f}ms",
                "scrape_timeout": f"{scrape_seconds * 1000:.0f}ms",
            },
            "scrape_configs": [
                {
                    "job_name": "vllm",
                    "file_sd_configs": [{"files": [str(self.targets / "*.json")], "refresh_interval": "1s"}],
                }
            ],
        }
        (self.folder / "prometheus.yaml").write_text(yaml.safe_dump(config))

    def _write_web_config(self, *, tls: bool, basic_auth: bool) -> None:
        config: dict[str, object] = {}
        if tls:
            assert self.ca is not None
            authority = trustme.CA()
            authority.cert_pem.write_to_path(self.ca)
            server = authority.issue_cert(HOST, not_after=self._certificate_ends)
            server.private_key_and_cert_chain_pem.write_to_path(self.folder / "server.pem")
            pem = str(self.folder / "server.pem")
            config["tls_server_config"] = {"cert_file": pem, "key_file": pem}
        if basic_auth:
            config["basic_auth_users"] = {USERNAME: PASSWORD_HASH}
        (self.folder / "web.yaml").write_text(yaml.safe_dump(config))
