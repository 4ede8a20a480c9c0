"""Calls in parallel: over the processes of this machine, a Ray or a Dask cluster, by joblib's backends.

Every call runs in a Python process, `python -m dnabook.engines`, beside the engine's worker, which only waits
for it. A pool of the engine's own would be lost as a whole when one worker is killed (joblib then ends the
others too); this way a call that runs out of memory is one `Failure` among the results, and the next call
gets a new process. On this machine a process makes call after call, so that PyTorch is imported and a GPU
opened once a job, which takes seconds; on a cluster each call has its own. Results come back to the caller
one by one, as they are ready, so no disk need be shared. `records.make` uses this module for trials.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import io
import logging
import math
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import joblib
import torch

NAMES = ("joblib", "ray", "dask")
NEEDS = {"joblib": ("joblib",), "ray": ("ray",), "dask": ("dask", "distributed")}
OURS = "DNABOOK_"  # settings in the environment that go along to other machines
PATIENCE = 20  # seconds to wait for the answer of a cluster


class Failure(NamedTuple):
    """What stands in the place of the result of a call that raised an error, or whose process died.

    traceback: of the error, as Python prints it; "" for a process that died.
    """

    reason: str
    traceback: str = ""


class Plan(NamedTuple):
    """How calls are spread; `plan` makes and checks it.

    slots: the devices, one for each call that runs at the same time; None: the default where it runs.
    threads: how many threads PyTorch takes for a call.  address: of a cluster that runs already.
    """

    engine: str
    slots: tuple[str | None, ...]
    threads: int
    address: str | None = None


def plan(
    engine: str | None = None,
    *,
    jobs: int | None = None,
    devices: Sequence[str] | None = None,
    threads: int | None = None,
    address: str | None = None,
) -> Plan | None:
    """The plan for these wishes, or None where they ask for nothing but one call after the other, right here.

    engine: "joblib" for this machine, "ray" or "dask" for a cluster; None: "joblib" for several jobs.
    jobs: how many calls run at the same time; None: one for each device; where none is named, one on a
      machine with a GPU, which they would share, and one for each core elsewhere.
    devices: round robin, job by job. On a cluster all are the same: it has its own way to place GPUs.
    threads: of each call; None: PyTorch's threads here are shared out, so the number does not depend on the
      engine, and neither do the results.
    address: of a cluster that runs already, "auto" or a scheduler's; None: a local one is started and closed.

    Raises ValueError for what cannot be, or is not installed, before anything is started.
    """
    if engine not in (None, *NAMES):
        raise ValueError(f"unknown engine {engine!r}; known: {', '.join(NAMES)}")
    for what, number in (("jobs", jobs), ("threads", threads)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise ValueError(f"{what} must be a whole number, at least 1, got {number!r}")
    if devices is not None and (isinstance(devices, str) or not devices or not all(devices)):
        raise ValueError(f'devices are names like "cuda:0", at least one and none empty, got {devices!r}')
    if address is not None and engine in (None, "joblib"):
        raise ValueError("an address is for a cluster: engine ray or dask")
    if address is not None and jobs is None:
        raise ValueError("a cluster at an address needs to be told how many jobs may run at the same time")
    if engine is None and (jobs or 1) == 1 and len(devices or ()) <= 1:
        return None
    engine = engine or "joblib"
    if missing := [name for name in NEEDS[engine] if importlib.util.find_spec(name) is None]:
        extra = "" if engine == "joblib" else f"[{engine}]"
        raise ValueError(
            f'engine {engine} needs {" and ".join(missing)}; get it with: pip install "dnabook{extra}"'
        )
    if engine != "joblib" and len(set(devices or ())) > 1:
        raise ValueError(
            f"different devices are for engine joblib; on a {engine} cluster name one device, such as cuda, "
            "and let each worker have its own"
        )
    jobs = jobs or len(devices or ()) or (1 if torch.cuda.is_available() else joblib.cpu_count())
    slots = placement(devices or (None,), jobs)
    return Plan(engine, slots, threads or max(1, torch.get_num_threads() // jobs), address)


def placement(devices: Sequence[str | None], jobs: int) -> tuple[str | None, ...]:
    """The device of each job, round robin. Raises ValueError where a device would have no job."""
    if jobs < len(devices):
        raise ValueError(f"{len(devices)} devices need at least as many jobs, got {jobs}")
    return tuple(devices[job % len(devices)] for job in range(jobs))


def results(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], plan: Plan
) -> Iterator[tuple[int, Any]]:
    """(index, result) of every `function(*calls[index], device)`, in the order in which they finish.

    The calls start in their order. function must be found by its module's name (no lambda), arguments and
    results must pickle; without a `plan.address` they run under this process's DNABOOK_ settings.
    Where a call raised an error or its process died, the result is a `Failure`, and the others go on.
    Closing the iterator, or an interrupt, ends the processes of this machine.
    Raises ValueError where the cluster cannot be reached or is too small.
    """
    settings = {name: value for name, value in os.environ.items() if name.startswith(OURS)}
    if plan.address is None:
        settings["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))
    waiting, reason = set(range(len(calls))), "the engine gave no result"
    with _ENGINES[plan.engine](plan) as (backend, run):
        parallel = joblib.Parallel(
            backend=backend,
            n_jobs=max(2, len(plan.slots)),  # with 1, joblib would compute here and not on the cluster
            pre_dispatch=len(plan.slots),
            batch_size=1,
            return_as="generator_unordered",
        )
        requests = ((i, pickle.dumps((plan.threads, function, call))) for i, call in enumerate(calls))
        answers = parallel(joblib.delayed(run)(i, request, settings) for i, request in requests)
        try:
            for index, answer in answers:
                if index is None:  # a worker of the cluster was lost, and with it which call it had
                    reason = answer.reason
                    continue
                waiting.discard(index)
                yield index, answer if isinstance(answer, Failure) else pickle.loads(answer)
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # joblib's, that calls were given up: the caller knows
                answers.close()
    for index in sorted(waiting):
        yield index, Failure(reason)


# --- Calls in another process --------------------------------------------------------------------


class _Worker:
    """A Python process that makes one call after the other, until it is closed or one of them fails."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.ended = False
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **settings},
            start_new_session=True,  # an interrupt from the keyboard is the parent's to handle
        )

    def call(self, request: bytes, device: str | None) -> bytes | Failure:
        """The call's pickled result. After a failure the process is gone: it may be left in any state."""
        with contextlib.suppress(OSError):  # its end is told below
            _send(self.process.stdin, request + pickle.dumps(device))
        answer = _received(self.process.stdout)
        if answer is None:
            failure = Failure(_told(self.process.wait()))
        else:
            fine, value = pickle.loads(answer)
            if fine:
                return value
            failure = Failure(*value)
        self.close()
        return failure

    def close(self) -> None:
        self.ended = True
        self.process.kill()
        with contextlib.suppress(OSError), self.process:
            pass  # closes the pipes and waits for the end


def _told(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"its process ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal has no name
        name = f"signal {-status}"
    hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}"


def _in_a_process(
    index: int, request: bytes, settings: dict[str, str], device: str | None
) -> tuple[int, bytes | Failure]:
    """The call's index and its result, from a process for it alone. Runs in a cluster's worker."""
    worker = _Worker(settings)
    try:
        return index, worker.call(request, device)
    finally:
        worker.close()


def _send(stream: IO[bytes], message: bytes) -> None:
    stream.write(len(message).to_bytes(8, "big") + message)
    stream.flush()


def _received(stream: IO[bytes]) -> bytes | None:
    """The next message whole, or None where the stream ends before."""
    size = _read(stream, 8)
    return size and _read(stream, int.from_bytes(size, "big"))


def _read(stream: IO[bytes], count: int) -> bytes | None:
    found = b""
    while len(found) < count:
        part = stream.read(count - len(found))
        if not part:
            return None
        found += part
    return found


def _serve() -> None:
    """Make the calls that come on stdin, answering each, until the process that sent them is gone."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    while True:
        answer = _answer(requests.get())
        sys.stderr.flush()
        _send(out, answer)
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # another process may need it before this one does


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    """Pass on what comes on stdin; end this process with the one that started it, which closes our stdin."""
    with io.FileIO(0, closefd=False) as stdin:
        while (request := _received(stdin)) is not None:
            requests.put(request)
    os._exit(1)


def _answer(request: bytes) -> bytes:
    """(True, pickled result) of a call or (False, what a `Failure` is made of), pickled."""
    try:
        stream = io.BytesIO(request)
        threads, function, arguments = pickle.load(stream)
        device = pickle.load(stream)
        torch.set_num_threads(threads)
        answer = True, pickle.dumps(function(*arguments, device))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        answer = False, (reason, traceback.format_exc())
    return pickle.dumps(answer)


# --- The engines: each gives joblib's backend and the function that its workers run ---------------


@dataclass
class _Job:
    """A place for one call at a time: its device, and the process that waits there for the next call."""

    device: str | None
    worker: _Worker | None = None


@contextlib.contextmanager
def _on_this_machine(plan: Plan) -> Iterator[tuple[Any, Callable]]:
    free: queue.SimpleQueue[_Job] = queue.SimpleQueue()
    jobs = [_Job(device) for device in plan.slots]
    for job in jobs:
        free.put(job)
    over = threading.Event()

    def run(index: int, request: bytes, settings: dict[str, str]) -> tuple[int, bytes | Failure]:
        job = free.get()
        try:
            if job.worker and job.worker.process.poll() is not None:  # ended while it had nothing to do
                job.worker.close()
            if job.worker is None or job.worker.ended:
                job.worker = _Worker(settings)
            if over.is_set():
                job.worker.close()
                return index, Failure("given up")
            return index, job.worker.call(request, job.device)
        finally:
            free.put(job)

    try:
        yield "threading", run  # a thread waits for each process
    finally:
        over.set()
        for job in jobs:
            if job.worker:
                job.worker.process.kill()  # where a call was being made, its thread sees the end and closes
        with contextlib.suppress(queue.Empty):
            while idle := free.get_nowait():
                if idle.worker:
                    idle.worker.close()


@contextlib.contextmanager
def _on_ray(plan: Plan) -> Iterator[tuple[Any, Callable]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to Ray's makers
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a thread that is late starts no second cluster
    import ray
    from ray.util.joblib.ray_backend import RayBackend

    class Backend(_KeepsGoing, RayBackend):
        supports_return_generator = True  # joblib switches it off for pools of processes; Ray's is not one

    jobs = max(2, len(plan.slots))
    ours = not ray.is_initialized()
    if ours:
        local = {"num_cpus": jobs, "include_dashboard": False} if plan.address is None else {}
        with _reachable("Ray", plan.address):
            if plan.address not in (None, "auto"):  # ray.init waits for ten minutes where nothing listens
                host, _, port = plan.address.rpartition("://")[2].rpartition(":")
                socket.create_connection((host, int(port)), PATIENCE).close()
            ray.init(plan.address or "local", log_to_driver=True, logging_level="error", **local)
    try:
        room = int(ray.cluster_resources().get("CPU", 0))
        if room < jobs:
            raise ValueError(f"the Ray cluster has {room} CPUs, too few for {jobs} jobs")
        cards = int(ray.cluster_resources().get("GPU", 0))
        options = {"scheduling_strategy": "SPREAD", "num_gpus": _share_of_a_card(plan.slots[0], jobs, cards)}
        # An actor for each call: Ray's pool deals calls out in turn, to busy actors too.
        yield Backend(ray_remote_args=options, maxtasksperchild=1), _runner(plan)
    finally:
        if ours:
            ray.shutdown()


def _share_of_a_card(slot: str | None, jobs: int, cards: int) -> float:
    """How much of a GPU each of Ray's actors asks for: all of them must be there before the first works."""
    if not str(slot).startswith("cuda"):
        return 0
    if cards == 0:
        raise ValueError("the Ray cluster has no GPU; name --device cpu")
    each = -(-jobs // cards)  # actors on a card
    return math.floor(1000 / each) / 1000  # Ray counts in thousandths or finer


@contextlib.contextmanager
def _on_dask(plan: Plan) -> Iterator[tuple[Any, Callable]]:
    import distributed
    from joblib._dask import DaskDistributedBackend

    class Backend(_KeepsGoing, DaskDistributedBackend):
        def submit(self, func: Callable, callback: Callable) -> Any:
            """As joblib's, which forgets to call back when the scheduler gives a call up."""
            future = super().submit(func, callback)
            future.add_done_callback(lambda done: done.exception() and callback(done.exception()))
            return future

    with contextlib.ExitStack() as stack:
        with _reachable("Dask", plan.address):
            cluster = plan.address or stack.enter_context(
                distributed.LocalCluster(
                    n_workers=max(2, len(plan.slots)),
                    threads_per_worker=1,
                    dashboard_address=None,
                    silence_logs=logging.ERROR,
                )
            )
            client = stack.enter_context(distributed.Client(cluster, timeout=PATIENCE, set_as_default=False))
        if plan.address and (room := sum(client.nthreads().values())) < 2:
            raise ValueError(f"the Dask cluster has {room} threads, joblib needs two or more")
        yield Backend(client=client), _runner(plan)


class _KeepsGoing:
    """For joblib's backends: a call that the cluster lost is a result, and the others go on."""

    def retrieve_result_callback(self, out: Any) -> Any:
        try:
            return super().retrieve_result_callback(out)
        except Exception as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())
            return [(None, Failure(f"the cluster lost it: {told}"))]


def _runner(plan: Plan) -> Callable:
    """`_in_a_process` for a cluster's worker, whose own settings go before ours where it was there first."""
    run = _in_a_guest_process if plan.address else _in_a_process
    return functools.partial(run, device=plan.slots[0])


def _in_a_guest_process(index: int, request: bytes, settings: dict[str, str], device: str | None) -> tuple:
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    return _in_a_process(index, request, {**settings, **own}, device)


@contextlib.contextmanager
def _reachable(engine: str, address: str | None) -> Iterator[None]:
    """Turns whatever goes wrong in reaching a cluster into one line."""
    try:
        yield
    except Exception as error:
        what = f"no {engine} cluster answers at {address}" if address else f"{engine} does not start here"
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{what} ({first})") from error


_ENGINES = {"joblib": _on_this_machine, "ray": _on_ray, "dask": _on_dask}

if __name__ == "__main__":
    _serve()
