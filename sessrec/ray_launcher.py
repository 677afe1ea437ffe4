"""Fits whose processes Ray starts: ``sessrec fit --launcher ray --workers 4``.

Ray starts the processes again when one of them is lost, and the fit resumes from its last checkpoint. What the first
process prints is printed here, through files in a folder that all machines see.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal, TextIO

from sessrec.distributed import LanesStrategy
from sessrec.errors import SessRecError, check_least, one_line
from sessrec.text import counted

Launcher = Literal["ray"]
Outcome = tuple[int, str]
"""Exit code of a command, and what it says last."""
_IS_WORKER = "SESSREC_RAY_WORKER"
_MOST_RESTARTS = 3
_STREAMS = ("stdout", "stderr")
_PAUSE = 0.2  # seconds between two looks at what is printed


def is_ray_worker() -> bool:
    """Whether this process is one that Ray has started."""
    return _IS_WORKER in os.environ


def ray_strategy() -> tuple[LanesStrategy, Any]:
    """Strategy and cluster environment of a trainer in such a process."""
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    class RayLanesStrategy(LanesStrategy, RayDDPStrategy):
        """`LanesStrategy` on the device that Ray gives the process."""

    return RayLanesStrategy(), RayLightningEnvironment()


def run_on_ray(
    run: Callable[[list[str]], Outcome], words: Sequence[str], n_workers: int, use_gpu: bool, folder: Path
) -> Outcome:
    """Run a command in processes that train together, on the cluster of RAY_ADDRESS or, without one, on this machine.

    Args:
        run: Runs the command in one of the processes.
        words: Arguments of the command, by which it resumes where there is a checkpoint.
        n_workers: Number of processes.
        use_gpu: Whether each has a GPU of its own.
        folder: Folder that all machines see, for Ray's files and what is printed.

    Raises:
        SessRecError: If Ray is not installed, has too few CPUs or GPUs, or processes are lost again and again.
    """
    with connected() as ray:
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer

        _check_resources(ray.cluster_resources(), n_workers, use_gpu)
        folder.mkdir(parents=True, exist_ok=True)
        work = {"run": run, "words": [*words], "folder": os.getcwd(), "program": sys.argv[0]}
        trainer = TorchTrainer(
            _work,
            train_loop_config=work | {"output": str(folder.resolve())},
            scaling_config=ScalingConfig(num_workers=n_workers, use_gpu=use_gpu),
            run_config=RunConfig(
                storage_path=str(folder.resolve()), failure_config=FailureConfig(max_failures=_MOST_RESTARTS)
            ),
        )
        try:
            with _printed_here(folder):
                return trainer.fit().return_value
        except TrainingFailedError as error:
            raise SessRecError(f"the fit has failed {_MOST_RESTARTS + 1} times on Ray: {one_line(error)}") from error


def _work(work: dict[str, Any]) -> Outcome:
    """What each process does."""
    import ray.train

    os.chdir(work["folder"])
    os.environ[_IS_WORKER], sys.argv[0] = "yes", work["program"]
    is_first = ray.train.get_context().get_world_rank() == 0
    with ExitStack() as files:
        for name, redirect in zip(_STREAMS, (redirect_stdout, redirect_stderr), strict=True):
            file = Path(work["output"], name) if is_first else Path(os.devnull)  # the others print the same
            files.enter_context(redirect(files.enter_context(file.open("a", buffering=1, encoding="utf-8"))))
        return work["run"](work["words"])


@contextmanager
def _printed_here(folder: Path) -> Iterator[None]:
    """Print meanwhile what is added to the files of the streams, which are removed at the end."""
    ended = threading.Event()
    files = [(folder / name, getattr(sys, name)) for name in _STREAMS]
    for file, _ in files:
        file.write_text("", encoding="utf-8")
    threads = [threading.Thread(target=_follow, args=(*pair, ended), daemon=True) for pair in files]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        for file, _ in files:
            file.unlink()


def _follow(file: Path, stream: TextIO, ended: threading.Event) -> None:
    with file.open(encoding="utf-8") as lines:
        while True:
            is_last = ended.wait(_PAUSE)
            stream.write(lines.read())
            stream.flush()
            if is_last:
                return


@contextmanager
def connected() -> Iterator[Any]:
    """Ray, which says nothing of itself, connected to a cluster; what runs there for this process ends with it.

    Raises:
        SessRecError: If it is not installed.
    """
    ray = _import_ray()
    ray.init(logging_level=logging.ERROR, include_dashboard=False, log_to_driver=False)
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    os.environ |= {"RAY_TRAIN_V2_ENABLED": "1", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what will change
    try:
        import ray
        import ray.train.lightning
    except ImportError as error:
        raise SessRecError("--launcher ray needs Ray: pip install 'sessrec[ray]'") from error
    return ray


def _check_resources(there: dict[str, float], n_workers: int, use_gpu: bool) -> None:
    """Refuse what Ray would wait for without an end."""
    kind = "GPU" if use_gpu else "CPU"
    check_least("--workers", n_workers, 1)
    if (n := int(there.get(kind, 0))) < n_workers:
        raise SessRecError(f"--workers {n_workers}: the Ray cluster has {counted(n, kind)}, and each process takes one")
