"""`python -m bench.serving`: load the REST service on this machine, and compare it with its engine alone.

A generator of random weights is exported and served by ONNX Runtime in a process of its own. Clients, each with one
connection, send an image again as soon as they have its translation. In each round the engine alone, in as many
threads and called with batches as large as the service makes them, takes turns with every number of clients. Rounds are
bounded in time and in requests, and the service is stopped at the end.
"""

import argparse
import asyncio
import io
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from bench.reporting.markdown import markdown_table
from cyclegan_fast.images.pixels import Pixels
from export.onnx_translators import load_translator

BATCH = 8
HOST = "127.0.0.1"
_MOST_REQUESTS = 20_000
"""requests of one turn, at most, however fast they are"""


@dataclass
class Turn:
    """Gathers what one number of clients saw: images a second of each round, and seconds of each request."""

    images_per_s: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)

    def ratio_to(self, other: "Turn") -> float:
        """Return the median over rounds of this turn's images a second, divided by another turn's."""
        ratios = [ours / theirs for ours, theirs in zip(self.images_per_s, other.images_per_s, strict=True)]
        return statistics.median(ratios)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64], help="numbers of clients")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn of a round")
    parser.add_argument("--size", type=int, default=256, help="side of the images, pixels")
    parser.add_argument("--onnx", type=Path, help="an exported file of 8-bit RGB to serve in place of random weights")
    parser.add_argument("--width", type=int, default=64, help="channels behind the first convolution")
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime, in the service and alone")
    parser.add_argument("--batch-wait-ms", type=float, default=2.0)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = options.onnx or Path(folder) / "generator.onnx"
        if options.onnx is None:
            path.write_bytes(_exported(options.width, options.blocks))
        image = np.random.default_rng(0).integers(0, 256, (options.size, options.size, 3), np.uint8)
        engine, means = load_translator(path, "onnxruntime", "cpu", amp=False, threads=options.threads)
        flags = ["--threads", str(options.threads), "--batch-wait-ms", str(options.batch_wait_ms)]
        with served(path, flags, max(options.clients)) as port:
            request = _request(_as_png(image))
            _check(asyncio.run(_one(port, request)), engine(image[None])[0])
            names = ["engine alone, 1 at once", f"engine alone, {BATCH} at once"]
            names += [f"{clients} clients" if clients > 1 else "1 client" for clients in options.clients]
            turns = {name: Turn() for name in names}
            for _ in range(options.rounds):
                for name, most in zip(names, (1, BATCH), strict=False):
                    _alone(turns[name], engine, np.stack([image] * most), options.seconds)
                for name, clients in zip(names[2:], options.clients, strict=True):
                    asyncio.run(_loaded(turns[name], port, request, clients, options.seconds))
    print(f"{options.size}x{options.size}, {means}, {options.threads} of its threads, {options.rounds} rounds")
    print(markdown_table(("", "images a second", "/ engine's, 1 at once", "p50, ms", "p99, ms"), list(_rows(turns))))
    return 0


def _rows(turns: dict[str, Turn]) -> Iterator[list[str]]:
    alone = next(iter(turns.values()))
    for name, turn in turns.items():
        p50, p99 = (1000 * float(np.percentile(turn.latencies_s, percent)) for percent in (50, 99))
        yield [
            name,
            f"{statistics.median(turn.images_per_s):.3g}",
            f"{turn.ratio_to(alone):.2f}",
            f"{p50:.0f}",
            f"{p99:.0f}",
        ]


def _exported(width: int, blocks: int) -> bytes:
    """Return the ONNX file of a generator whose random weights are of the size of trained ones, pixels in and out."""
    import torch  # here, because a file that is there needs none of these

    from cyclegan_fast.networks.resnet import ResnetGenerator
    from export.graphs.graph import serialised
    from export.graphs.onnx_file import with_digest
    from export.graphs.pixel_io import with_pixel_io
    from export.to_onnx import float32_graph

    torch.manual_seed(0)
    network = ResnetGenerator(width=width, blocks=blocks).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return with_digest(serialised(with_pixel_io(float32_graph(network))))


def _as_png(image: Pixels) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def _check(answer: bytes, expected: Pixels) -> None:
    """Raise ValueError unless an answer is what the engine gives: results come before times."""
    with Image.open(io.BytesIO(answer)) as image:
        found = np.asarray(image)
    if not np.array_equal(found, expected):
        raise ValueError("the service's translation is not the engine's")


# --- the service -----------------------------------------------------------------------------------------------------


@contextmanager
def served(path: Path, flags: Sequence[str], clients: int) -> Iterator[int]:
    """Serve a file in a process of its own on a free port, which is yielded; stop it as an operator would."""
    command = [sys.executable, "-m", "export.serve", str(path), "--port", "0", "--backend", "onnxruntime"]
    command += [
        "--batch-size",
        str(BATCH),
        "--rate",
        "0",
        "--request-s",
        "600",
        "--max-requests",
        str(2 * clients),
        *flags,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield _port_of(process.stdout)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise ValueError(f"the service ended with status {process.returncode}")


def _port_of(lines: Iterator[str]) -> int:
    """Return the port that the service's log tells; the rest of the log is read in a thread, so that it never waits."""
    for line in lines:
        event = json.loads(line)
        if event["event"] == "started":
            threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()
            return int(event["url"].rpartition(":")[2])
    raise ValueError("the service did not start")


# --- turns -----------------------------------------------------------------------------------------------------------


def _alone(turn: Turn, translate: Callable[[Pixels], object], images: Pixels, seconds: float) -> None:
    """Call the engine for some seconds."""
    begun_s = ended_s = time.perf_counter()
    done = 0
    while ended_s < begun_s + seconds:
        call_s = time.perf_counter()
        translate(images)
        ended_s = time.perf_counter()
        turn.latencies_s.append(ended_s - call_s)
        done += len(images)
    turn.images_per_s.append(done / (ended_s - begun_s))


async def _loaded(turn: Turn, port: int, request: bytes, clients: int, seconds: float) -> None:
    """Let clients ask for some seconds; what was asked by then is waited for."""
    begun_s = time.perf_counter()
    left = [_MOST_REQUESTS]
    counts = await asyncio.gather(*(_client(turn, port, request, begun_s + seconds, left) for _ in range(clients)))
    turn.images_per_s.append(sum(counts) / (time.perf_counter() - begun_s))


async def _client(turn: Turn, port: int, request: bytes, until_s: float, left: list[int]) -> int:
    reader, writer = await asyncio.open_connection(HOST, port)
    done = 0
    while time.perf_counter() < until_s and left[0] > 0:
        left[0] -= 1
        asked_s = time.perf_counter()
        writer.write(request)
        await _answer(reader)
        turn.latencies_s.append(time.perf_counter() - asked_s)
        done += 1
    writer.close()
    return done


async def _one(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    answer = await _answer(reader)
    writer.close()
    return answer


def _request(image: bytes) -> bytes:
    head = f"POST /translate HTTP/1.1\r\nHost: {HOST}\r\nAccept: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
    return head.encode() + image


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Return the body of an answer; raises ValueError unless its status is 200."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = next(int(line.partition(":")[2]) for line in head.splitlines() if line.startswith("content-length:"))
    body = await reader.readexactly(length)
    if not head.startswith("http/1.1 200 "):
        raise ValueError(f"the service refused: {body.decode(errors='replace').strip()}")
    return body


if __name__ == "__main__":
    sys.exit(main())
