"""TaskFlow beside peers, in interleaved pairs: run by the harness's own interpreter, from a folder that holds both.

`python pairs.py [--pairs 5] [--items drain-10k,...] --out FILE` appends a JSON line for each item: every rate, and the
ratio with its interval (95 % of the mean of the ratios' logarithms). Seconds differ from run to run; ratios of one pair
were measured within a minute of each other.
"""

import argparse
import json
import pathlib
import subprocess
import time
import tomllib
from typing import Any, NamedTuple

import psycopg
import run  # the harness's
from ratios import interval  # bench/ratios.py, put beside this file
from servers import Servers  # the harness's

CAP_SECONDS = 120.0
LEFT = "select count(*) from tasks where status::text not in ('COMPLETED', 'FAILED')"
FLUSHES = "select coalesce(sum(fsyncs), 0) from pg_stat_io where object = 'wal'"


class Item(NamedTuple):
    """What is compared: `what` of TaskFlow with that of a peer; the target is a least ratio."""

    name: str
    what: str
    peer: str
    target: float
    tasks: int = 10_000
    analyze: bool = True
    own: str = "taskflow"


ITEMS = (
    Item("drain-10k", "drain", "pgqueuer", 1.0),
    Item("drain-50k", "drain", "pgqueuer", 1.3, 50_000),
    Item("drain-300k", "drain", "pgqueuer", 1.3, 300_000),
    Item("drain-taskiq", "drain", "taskiq-stream", 4.0),
    Item("drain-taskiq-50k", "drain", "taskiq-stream", 4.0, 50_000),
    Item("drain-celery", "drain", "celery-prefork", 15.0),
    Item("drain-unanalyzed", "drain", "taskflow", 0.9, 50_000, analyze=False),
    Item("drain-sync", "drain", "taskflow", 0.5, 50_000, own="taskflow-sync"),
    Item("bulk", "bulk", "pgqueuer", 0.7, 50_000),
    Item("map", "map", "pgqueuer", 0.7, 50_000),
    Item("latency", "latency", "huey", 0.0),
)


class Course:
    """One run of the harness's servers."""

    def __init__(self, servers: Any, peers: dict[str, Any]) -> None:
        self.settings = argparse.Namespace(analyze=True, cap=CAP_SECONDS, aof="no")
        self.bench = run.Bench(servers, self.settings)
        self._servers, self._peers = servers, peers

    def measure(self, name: str, item: Item, *, analyze: bool = True) -> dict[str, float]:
        """One figure of one contestant."""
        peer = self._peers[name]
        self.settings.analyze = analyze
        self.bench.fresh(peer)
        if item.what == "latency":
            return self._latency(peer)
        if item.what == "map" and name == item.own:
            return {"value": self._mapped(peer, item.tasks)}
        filled = self.bench.client(peer, "submit", 0, 0, item.tasks, limit=300)
        if item.what in {"bulk", "map"}:
            return {"value": filled["bulk"]}
        drained = self.bench.drain(peer, 2, item.tasks)
        cpu = drained["cpu_worker2"] + drained["cpu_broker2"]
        return {"value": drained["drain2"], "cpu": cpu, **self._behind(name)}

    def _mapped(self, peer: dict[str, Any], tasks: int) -> float:
        """One `map` of all tasks; "bulk" waits for the answer to each 500, as the harness has it."""
        command = ["python", "adapters/ad_taskflow.py", "map", str(tasks)]
        env = self.bench.env(peer)
        told = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=300)
        return float(told.stdout.split()[-1])

    def _behind(self, name: str) -> dict[str, float]:
        """How many endings of TaskFlow were not committed when the workers were stopped after the last handler."""
        if not name.startswith("taskflow"):
            return {}
        with psycopg.connect(self._servers.pg_url) as connection:
            return {"left": connection.execute(LEFT).fetchone()[0]}

    def _latency(self, peer: dict[str, Any]) -> dict[str, float]:
        self.bench.client(peer, "submit", 1, 5, 1)
        self.bench.procs = self.bench.worker(peer, 1)
        try:
            began = time.time_ns()
            self.bench.wait(1, 1)
            cold = (self.bench.records()[0][1] - began) / 1e9
            time.sleep(1.5)
            pss = run.tree_pss([process.pid for process in self.bench.procs])
            self.bench.client(peer, "pace", 500, 0.02)
            end = time.time() + 8
            while self.bench.count() < 506 and time.time() < end:
                time.sleep(0.05)
            found = sorted((record[1] - record[0]) / 1e6 for record in self.bench.records()[1:] if record[0])
        finally:
            run.stop(self.bench.procs)
        half, most, nearly_all = (found[min(len(found) - 1, int(len(found) * share))] for share in (0.5, 0.95, 0.99))
        return {"value": half, "p95": most, "p99": nearly_all, "cold_s": cold, "pss_mib": pss}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--items", default="")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("pairs.jsonl"))
    asked = parser.parse_args()
    names = asked.items.split(",") if asked.items else [item.name for item in ITEMS]
    peers = tomllib.loads((run.HERE / "peers.toml").read_text())
    with Servers() as servers, asked.out.open("a", encoding="utf-8") as out:
        course = Course(servers, peers)
        for item in ITEMS:
            if item.name not in names:
                continue
            ours: list[dict[str, float]] = []
            theirs: list[dict[str, float]] = []
            for turn in range(asked.pairs):
                sides = [
                    (ours, item.own, item.analyze),
                    (theirs, item.peer, True),
                ]
                for kept, name, analyze in sides if turn % 2 == 0 else reversed(sides):
                    kept.append(course.measure(name, item, analyze=analyze))
                    print(item.name, name, {k: round(v, 3) for k, v in kept[-1].items()}, flush=True)
            low, mean, high = interval([a["value"] / b["value"] for a, b in zip(ours, theirs, strict=True)])
            row = {**item._asdict(), "low": low, "ratio": mean, "high": high, "ours": ours, "theirs": theirs}
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(f"{item.name}: {mean:.2f} ({low:.2f} to {high:.2f}), target {item.target}", flush=True)


if __name__ == "__main__":
    main()
