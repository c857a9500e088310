"""The fork server: imports the pool's modules once, then forks a worker in a few milliseconds whenever it is asked.

It has no threads and no event loop: a fork of a process with threads can deadlock in the child. Where an import starts
threads, it says so and ends; the supervisor then starts each worker as a process of its own.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import msgspec

from tenure._agent import Agent
from tenure._definition import collect, describe
from tenure.worker import linux
from tenure.worker.config import Config
from tenure_link import AgentClass, Fault

Classes = dict[str, type[Agent[Any]]]


class Imported(msgspec.Struct, frozen=True, tag=True):
    """The modules are imported; `threaded`: their import left threads, no worker can be forked from here."""

    threaded: bool = False


class Broken(msgspec.Struct, frozen=True, tag=True):
    """The modules cannot be imported."""

    fault: Fault


class Forked(msgspec.Struct, frozen=True, tag=True):
    """A worker exists; the supervisor is its parent."""

    pid: int
    page: int
    """Of its notes."""


Report = Imported | Broken | Forked
_encoder = msgspec.msgpack.Encoder()
decode_report = msgspec.msgpack.Decoder(Report).decode


class ImportProblem(Exception):
    """The modules cannot be imported; carries the words for their author."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def load(config: Config) -> tuple[Classes, tuple[AgentClass, ...]]:
    """Import the pool's modules; their classes and descriptions. Raises ImportProblem: the author's file and line."""
    try:
        modules = [importlib.import_module(name) for name in config.modules]
        classes = collect(modules)
        return classes, tuple(describe(cls) for _, cls in sorted(classes.items()))
    except (Exception, SystemExit) as error:  # a module may raise anything
        raise ImportProblem(import_fault(error, config.modules)) from error


def import_fault(error: BaseException, modules: tuple[str, ...]) -> Fault:
    """The error with the place in the author's code where it happened."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, ModuleNotFoundError) and error.name and any(_within(name, error.name) for name in modules):
        where = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
        return Fault("ImportFailed", f"there is no module {error.name!r}; looked in {where}", details)
    place = _place(error)
    text = error.msg if isinstance(error, SyntaxError) else str(error) or "no message"
    return Fault("ImportFailed", f"{place}{type(error).__name__}: {text}", details)


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}: "
    last = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        if name.split(".")[0] not in {"importlib", "tenure", "pydantic", "runpy"}:
            last = f"{_short(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return last


def _short(filename: str) -> str:
    path = Path(filename)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return filename


def serve(
    control: socket.socket,
    config: Config,
    supervisor: int,
    run: Callable[[Classes, tuple[AgentClass, ...], int], NoReturn],
) -> NoReturn:
    """Import, report, and fork until the supervisor closes `control`, which sends a byte for each worker that it wants:
    the page of its notes. `run` is what a worker does.
    """
    try:
        classes, described = load(config)
    except ImportProblem as problem:
        _report(control, Broken(problem.fault))
        os._exit(1)
    threaded = linux.threads() > 1
    _report(control, Imported(threaded=threaded))
    if threaded:
        os._exit(0)
    gc.collect()
    gc.freeze()  # the imported modules stay shared with the workers
    while asked := control.recv(64):
        for page in asked:
            pid = _fork_worker(control, supervisor, partial(run, classes, described, page))
            _report(control, Forked(pid, page))
    os._exit(0)


def _report(control: socket.socket, report: Report) -> None:
    body = _encoder.encode(report)
    control.sendall(len(body).to_bytes(4, "big") + body)


def _fork_worker(control: socket.socket, supervisor: int, run: Callable[[], NoReturn]) -> int:
    """Fork twice, so that the supervisor, which reaps, becomes the parent. Returns the worker's PID."""
    read_end, write_end = os.pipe()
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            os.close(write_end)
            control.close()
            follow(supervisor)
            child(run)
        os.write(write_end, pid.to_bytes(4, "big"))
        os._exit(0)
    os.close(write_end)
    pid = int.from_bytes(os.read(read_end, 4), "big")
    os.close(read_end)
    os.waitpid(between, 0)
    return pid


def child(body: Callable[[], object]) -> NoReturn:
    """Run the rest of a forked process: it never returns into the code of its parent."""
    try:
        body()
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(1)


def follow(supervisor: int) -> None:
    """Die when the supervisor dies. Waits, 1 s at most, until it has become the parent."""
    for _ in range(1000):
        if os.getppid() == supervisor:
            break
        time.sleep(0.001)  # the process between us ends right after it told our PID
    linux.die_with_parent(signal.SIGKILL)
    if os.getppid() != supervisor:
        print("tenure.worker: the supervisor is gone", file=sys.stderr)  # noqa: T201
        os._exit(1)
