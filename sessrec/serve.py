"""Recommend for live sessions over HTTP, from the very model that was tested.

Example::

    sessrec serve --ckpt_path lightning_logs/my-run/checkpoints/best.ckpt --port 8000
    curl http://127.0.0.1:8000/v1/recommend --json '{"items": ["10", "25"], "k": 5}'

http://127.0.0.1:8000 is a page to try the model: --beside shows a second one, --items titles and pictures, --sessions
the ranks in sessions of a log.

Routes: POST /v1/recommend and /v1/recommend:batch, PUT /v1/availability, DELETE /v1/sessions/ID, POST /v1/reload,
GET /v1/model, /healthz, /readyz, /metrics (Prometheus) and /docs, which tells what each takes and gives. SIGHUP loads
the checkpoint anew, SIGTERM answers what waits and ends. Sessions are kept in memory, in Redis or Valkey (--store
redis://127.0.0.1:6379/0), or not at all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sessrec.arguments import ScriptParser
from sessrec.errors import SessRecError, check_least, error_text
from sessrec.text import counted

try:
    import uvicorn

    from sessrec.serving.api import create_app
    from sessrec.serving.item_table import ItemTable, read_item_table
    from sessrec.serving.page import Page
    from sessrec.serving.requests import Engine
    from sessrec.serving.schemas import MOST_REQUESTS, Limits
    from sessrec.serving.service import Service
    from sessrec.serving.session_store import store_of
except ModuleNotFoundError as error:
    if error.name not in ("fastapi", "uvicorn", "prometheus_client", "pydantic", "starlette"):
        raise
    _MISSING = error.name
else:
    _MISSING = ""

_MOST_MINUTES = 525_600  # a year
_SWITCH_SECONDS = 0.0005  # a request must not wait for Python's usual 5 ms until the other thread lets it run


def main(args: list[str] | None = None) -> None:
    """Run the server until it is told to end."""
    parser = _parser()
    options = parser.parse_args(args)
    if _MISSING:
        parser.error(f"serve needs {_MISSING}, which is not installed: pip install sessrec[serve]")
    try:
        _check(options)
        token = _token_of(options.token_file)
        store = store_of(options.store, 60 * options.session_minutes, options.most_sessions, options.most_events)
        load = _loader(options.backend, options.threads)
        with _listen(options.host, options.port) as bound:
            sizes, in_loop = (options.most_at_once, options.most_waiting), _n_processors() == 1
            schedule = _schedule(options)
            service = Service(options.ckpt_path, load, store, *sizes, in_loop, schedule)
            page = _page(options, [service])
            if options.beside is not None:
                page.services.append(Service(options.beside, load, None, *sizes, in_loop, schedule))
            listening = bound.dup()
    except (SessRecError, OSError) as error:
        parser.error(error_text(error))
    sys.setswitchinterval(_SWITCH_SECONDS)
    origin, (host, port, *_) = service.engine.origin, listening.getsockname()
    where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(f"{origin.model} of {origin.run}, {len(service.engine.item_ids):,} items: {where}", flush=True)
    app = create_app(service, token, page.limits, page)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10)
    loop = (config.get_loop_factory() or asyncio.new_event_loop)()  # uvloop where it is there
    try:
        loop.run_until_complete(_serve(uvicorn.Server(config), page.services, listening))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _schedule(options: argparse.Namespace) -> Any:
    """When items are there, by the table of the option; None where there is none."""
    if options.availability is None:
        return None
    from sessrec.features.availability import read_availability  # which takes a second

    schedule = read_availability(str(options.availability), options.item_column, options.time_unit, options.time_format)
    print(f"{options.availability} says when {counted(len(schedule.item_ids), 'item')} can be had", flush=True)
    for note in schedule.notes:
        print(f"{options.availability}: {note}", flush=True)
    return schedule


def _page(options: argparse.Namespace, services: list[Service]) -> Page:
    """What the page shows, with a word on what was read."""
    items = ItemTable() if options.items is None else read_item_table(options.items)
    sessions = None
    if options.sessions is not None:
        from sessrec.serving.log_sessions import read_log_sessions  # which takes a second

        sessions = read_log_sessions(options.sessions, options.ckpt_path)
    if options.items is not None:
        n_known = sum(item_id in items for item_id in services[0].engine.item_ids)
        print(f"{options.items} has {n_known:,} of {len(services[0].engine.item_ids):,} items of the model", flush=True)
        for note in items.notes:
            print(f"{options.items}: {note}", flush=True)
    if sessions is not None:
        print(f"{options.sessions} has {len(sessions):,} sessions of two events or more", flush=True)
    return Page(services, items, sessions, Limits(options.most_k, options.most_items))


def _loader(backend: str, n_threads: int) -> Callable[[Path], Engine]:
    """What loads a model: a checkpoint in torch, or an exported folder in onnxruntime, which needs no torch.

    Raises:
        SessRecError: If onnxruntime is not installed.
    """
    if backend == "torch":
        import torch

        from sessrec.environment import tune_memory
        from sessrec.serving.engine import TorchEngine

        tune_memory()
        if n_threads:
            torch.set_num_threads(n_threads)
        return TorchEngine.of_checkpoint
    try:
        from sessrec.serving.onnx_engine import OnnxEngine
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise SessRecError(
            "--backend onnx needs onnxruntime, which is not installed: pip install sessrec[onnx]"
        ) from None
    return lambda folder: OnnxEngine.of_folder(folder, n_threads)


def _n_processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, bound before the model is loaded.

    Raises:
        SessRecError: If it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SessRecError(f"cannot listen on --host {host} --port {port}: {reason}") from error


async def _serve(server: Any, services: Sequence[Service], listening: socket.socket) -> None:
    """Serve until a signal; SIGHUP loads the first checkpoint anew."""
    loop = asyncio.get_running_loop()

    async def reload() -> None:
        try:
            origin = (await loop.run_in_executor(None, services[0].reload)).origin
            print(f"serves {origin.run}, {origin.digest[:12]}", flush=True)
        except SessRecError as error:
            print(f"sessrec.serve: the model stays: {error}", file=sys.stderr, flush=True)

    running: set[asyncio.Task[None]] = set()

    def on_hangup() -> None:
        task = loop.create_task(reload())
        running.add(task)
        task.add_done_callback(running.discard)

    with contextlib.suppress(NotImplementedError, AttributeError):  # there is no such signal on Windows
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    following = [loop.create_task(service.follow_schedule()) for service in services]
    for task in following:
        task.add_done_callback(_report_end)
    await server.serve(sockets=[listening])
    for task in following:
        task.cancel()


def _report_end(task: asyncio.Task[None]) -> None:
    """Say why items no longer come and go, where that ended by a fault."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        print(f"sessrec.serve: --availability is no longer followed: {error_text(fault)}", file=sys.stderr, flush=True)


def _token_of(file: Path | None) -> str | None:
    """The token for writing routes: the file's, else that of the environment, else none.

    Raises:
        SessRecError: If the file has none.
    """
    token = os.environ.get("SESSREC_TOKEN") if file is None else file.read_text(encoding="latin-1").strip()
    where = "SESSREC_TOKEN" if file is None else f"--token_file {file}"
    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise SessRecError(f"{where} must be a token of plain ASCII characters")
    return token


def _check(options: argparse.Namespace) -> None:
    """Say what is wrong with the options before the model is loaded."""
    numbers = ("most_k", "most_items", "most_events", "most_sessions", "most_at_once")
    least = {"port": 0, "threads": 0, "most_waiting": MOST_REQUESTS} | dict.fromkeys(numbers, 1)  # which one batch has
    for name, value in least.items():
        check_least(f"--{name}", getattr(options, name), value)
    if options.port > 65_535:
        raise SessRecError(f"--port must be at most 65535, got {options.port}")
    if not 0 < options.session_minutes <= _MOST_MINUTES:
        raise SessRecError(
            f"--session_minutes must be above 0 and at most {_MOST_MINUTES}, got {options.session_minutes}"
        )


def _parser() -> ScriptParser:
    parser = ScriptParser(__doc__, command="serve")
    add: Any = parser.add_argument
    add("--ckpt_path", type=Path, required=True, help="checkpoint of a fitted model, or folder of an exported one")
    text = "torch serves a checkpoint, onnx a folder of sessrec export, without torch (default: torch)"
    add("--backend", choices=["torch", "onnx"], default="torch", help=text)
    add("--beside", type=Path, help="checkpoint of a second model, which the page shows beside the first one")
    add("--items", type=Path, help="table of items for the page: ItemId, title, picture (Parquet, CSV or TSV)")
    text = "table of when items are there: ItemId, From, To, as --data.availability of a test takes it"
    add("--availability", type=Path, metavar="FILE", help=text)
    add("--item_column", default="ItemId", help="its column of item ids (default: ItemId)")
    units = ["auto", "s", "ms", "us", "ns", "min", "h", "d"]
    add("--time_unit", choices=units, default="auto", help="unit of its numeric times (default: auto)")
    add("--time_format", help="format of its times where they are neither numbers nor ISO 8601")
    text = "click log whose sessions the page shows with ranks, written as the one that the model was fitted to"
    add("--sessions", metavar="LOG", help=text)
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)")
    add("--port", type=int, default=8000, help="port to listen on; 0 takes a free one (default: 8000)")
    text = "file with the token that writing routes ask for (default: that of SESSREC_TOKEN, else none)"
    add("--token_file", type=Path, help=text)
    add("--store", default="memory", help="where sessions are kept: memory, none or redis://... (default: memory)")
    add("--session_minutes", type=float, default=30.0, help="minutes without an event that end one (default: 30)")
    add("--most_sessions", type=int, default=1_000_000, help="most sessions in memory (default: 1,000,000)")
    add("--most_events", type=int, default=200, help="last events of a session that are kept (default: 200)")
    add("--most_at_once", type=int, default=64, help="most requests that are answered together (default: 64)")
    add("--most_waiting", type=int, default=1024, help="most requests that wait; others get 503 (default: 1024)")
    add("--most_k", type=int, default=1000, help="longest list that is given (default: 1000)")
    add("--most_items", type=int, default=500, help="most items of a session that are taken (default: 500)")
    add("--threads", type=int, default=0, help="threads of the model (default: 0, one for each core)")
    return parser


if __name__ == "__main__":
    main()
