"""Functions that run side by side on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from sessrec.errors import SessRecError
from sessrec.ray_launcher import connected


class RayPool(Executor):
    """Runs each function in a process of the cluster, which Ray starts again where it is lost.

    Args:
        ray: The library, connected to a cluster.
        n_workers: Number of functions that run at a time; each gets its part of the cluster's CPUs.
    """

    def __init__(self, ray: Any, n_workers: int) -> None:
        of_machines = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        n_cpus = min(sum(of_machines) / n_workers, max(of_machines))  # a task runs on one machine
        if not n_cpus:
            raise SessRecError("the Ray cluster has no CPU (--launcher ray)")
        self._run = ray.remote(num_cpus=max(int(n_cpus), 1) if n_cpus >= 1 else n_cpus)(_call)

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """Have a function called; a `SessRecError` that it raises arrives as it is."""
        found: Future[Any] = Future()

        def hand_on(future: Future[Any]) -> None:
            if (error := future.exception()) is not None:
                found.set_exception(error)
                return
            value, fault = future.result()
            found.set_result(value) if fault is None else found.set_exception(SessRecError(fault))

        self._run.remote(os.getcwd(), function, args, options).future().add_done_callback(hand_on)
        return found


def _call(folder: str, function: Callable[..., Any], args: Any, options: Any) -> tuple[Any, str | None]:
    """What a function returns, or what is wrong for it."""
    os.chdir(folder)
    try:
        return function(*args, **options), None
    except SessRecError as error:
        return None, str(error)


@contextmanager
def ray_pool(n_workers: int) -> Iterator[RayPool]:
    """A pool on the cluster of RAY_ADDRESS or, without one, on this machine; what runs ends with it.

    Args:
        n_workers: Number of functions that run at a time.

    Raises:
        SessRecError: If Ray is not installed.
    """
    with connected() as ray:
        yield RayPool(ray, n_workers)
