"""Measure serving: throughput at saturation beside the engine's own, and latency at half of it.

python benchmarks/serve.py FOLDER [--images 600] [--rounds 5] [--head NAME]
python benchmarks/serve.py LINES.txt [--images 300]

The load comes from a process of its own, which sends ready-made requests over open connections. It
uses the same cores, so its share of the machine (its CPU seconds divided by the number of cores) is
subtracted from the seconds of the run. Each round measures, one after the other: the engine alone
(`FeatureExtractor.transform` of the same bytes); 32 connections that send one image after the other
without a pause; one such connection; and half the rate of saturation, with even and with random
(Poisson) arrivals, where latency counts from the scheduled start of a request. ``ideal`` is the
latency of random arrivals in a queue without overhead: one server per core, first come first served,
each request taking the time of a single image. The lines of a file are sent as texts, in random order,
to a model of the default text encoder with the last three blocks.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import joblib

CONNECTIONS = 32


def read(folder: str, n: int) -> list[bytes]:
    """Read images, or the lines of a file, and repeat them if there are too few."""
    if os.path.isfile(folder):
        lines = [line.encode() for line in Path(folder).read_text("latin-1").splitlines()]
        random.Random(0).shuffle(lines)
        return list(islice(cycle(lines), n))
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return [path.read_bytes() for path in islice(cycle(found), n)]


class Connection:
    """Hold one open connection and send requests over it."""

    async def open(self, address: str) -> Connection:
        """Connect."""
        where = urlsplit(address)
        self.reader, self.writer = await asyncio.open_connection(where.hostname, where.port, limit=2**22)
        return self

    async def ask(self, request: bytes) -> None:
        """Send and wait for the whole answer, which must be good."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head).group(1))
        body = await self.reader.readexactly(length)
        assert head.startswith(b"HTTP/1.1 200"), head + body


def wrap(content: bytes, kind: str) -> bytes:
    """Build the request of an image or a text."""
    head = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def closed(address: str, requests: list[bytes], n_connections: int) -> list[float]:
    """Ask over a number of connections, each one thing at a time."""
    left, latencies = iter(requests), []

    async def one(connection: Connection) -> None:
        for request in left:
            start = time.perf_counter()
            await connection.ask(request)
            latencies.append(time.perf_counter() - start)

    connections = [await Connection().open(address) for _ in range(n_connections)]
    await asyncio.gather(*map(one, connections))
    return latencies


def gaps(kind: str, rate: float, n: int) -> list[float]:
    """Return the seconds between requests, the same in every round."""
    draw = random.Random(0)
    return [draw.expovariate(rate) if kind == "random" else 1 / rate for _ in range(n)]


def ideal(rate: float, seconds: float, n: int, n_servers: int) -> list[float]:
    """Return the latencies of a queue without overhead."""
    free, now, latencies = [0.0] * n_servers, 0.0, []
    for gap in gaps("random", rate, n):
        now += gap
        end = max(now, heapq.heappop(free)) + seconds
        heapq.heappush(free, end)
        latencies.append(end - now)
    return latencies


async def timed(address: str, requests: list[bytes], kind: str, rate: float) -> list[float]:
    """Ask at given times, whatever has been answered by then."""
    free, latencies, tasks = [], [], []
    free += [await Connection().open(address) for _ in range(CONNECTIONS)]

    async def one(request: bytes, due: float) -> None:
        while free and free[-1].reader.at_eof():  # idle for long, so the server closed it
            free.pop()
        connection = free.pop() if free else await Connection().open(address)
        await connection.ask(request)
        latencies.append(time.perf_counter() - due)
        free.append(connection)

    due = time.perf_counter()
    for request, gap in zip(requests, gaps(kind, rate, len(requests)), strict=True):
        due += gap
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(request, due)))
    await asyncio.gather(*tasks)
    return latencies


def generate(kind: str, address: str, folder: str, n: int, rate: float) -> None:
    """Send the load, and print its measurements as JSON."""
    media = "text/plain" if os.path.isfile(folder) else "image/jpeg"
    requests = [wrap(content, media) for content in read(folder, n)]
    load = closed(address, requests, int(rate)) if kind == "closed" else timed(address, requests, kind, rate)
    cpu, start = time.process_time(), time.perf_counter()
    latencies = asyncio.run(load)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "latencies": latencies}))


def cpu_seconds(address: str) -> float:
    """Read the CPU seconds of the server so far."""
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        return float(re.search(rb"\nprocess_cpu_seconds_total (\S+)", answer.read()).group(1))


def measure(options: argparse.Namespace, extractor: object, address: str) -> dict[str, float]:
    """Run one round."""
    contents: list = read(options.folder, options.images)
    if os.path.isfile(options.folder):
        contents = [content.decode() for content in contents]
    cores, n = int(joblib.cpu_count()), options.images

    def load(kind: str, n: int, rate: float) -> dict:
        command = [sys.executable, __file__, options.folder, "--generate", kind, address, str(n), str(rate)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    cpu, start = time.process_time(), time.perf_counter()
    extractor.transform(contents)
    offline, offline_cpu = n / (time.perf_counter() - start), (time.process_time() - cpu) / n
    cpu = cpu_seconds(address)
    full = load("closed", n, CONNECTIONS)
    served_cpu = (cpu_seconds(address) - cpu) / n
    raw, corrected = n / full["seconds"], n / (full["seconds"] - full["cpu"] / cores)
    single = load("closed", n // 4, 1)
    alone = median(single["latencies"])
    result = {
        **{"offline": offline, "raw": raw, "served": corrected, "share": corrected / offline},
        **{"cpu share": offline_cpu / served_cpu, "single ms": 1000 * alone},
    }
    for kind in ("even", "random"):
        half = load(kind, 2 * n, raw / 2)["latencies"]
        result |= {f"{kind} p50": quantile(half, 0.5) / alone, f"{kind} p99": quantile(half, 0.99) / alone}
    return result | {"ideal p99": quantile(ideal(raw / 2, alone, 2 * n, cores), 0.99) / alone}


def quantile(values: list[float], q: float) -> float:
    """Return a quantile: the nearest measured value."""
    return sorted(values)[int(q * len(values))]


def main() -> None:
    """Fit, serve, measure in rounds, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of images, or a file of texts, one a line")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--head", default="logistic_regression")
    parser.add_argument("--generate", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        kind, address, n, rate = options.generate
        generate(kind, address, options.folder, int(n), float(rate))
        return

    from sklearn.pipeline import make_pipeline

    import featx

    some: list = read(options.folder, 120)
    if os.path.isfile(options.folder):
        from featx.fitting.texts import make_text_extractor

        extractor = make_text_extractor(device="cpu")
        some = [content.decode() for content in some]
    else:
        extractor = featx.FeatureExtractor(device="cpu")
    head = featx.make_head(options.head)
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.featx")
        featx.save(make_pipeline(extractor, head).fit(some, [i % 3 for i in range(len(some))]), model)
        command = [sys.executable, "-m", "featx", "serve", model, "--port", "0", "--device", "cpu"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            server.stdout.readline()
            address = server.stdout.readline().split("/ to try")[0].strip()
            rounds = []
            for i in range(options.rounds):
                rounds.append(measure(options, extractor, address))
                print(f"round {i + 1}: " + ", ".join(f"{name} {value:.3g}" for name, value in rounds[-1].items()))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    print("medians: " + ", ".join(f"{name} {median(one[name] for one in rounds):.3g}" for name in rounds[0]))


if __name__ == "__main__":
    main()
