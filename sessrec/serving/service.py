"""What the server does with a request: session, model, deadline, availability and reload."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sessrec.errors import SessRecError
from sessrec.serving.batcher import Batcher
from sessrec.serving.measures import Measures
from sessrec.serving.requests import Answer, Engine, Request
from sessrec.serving.session_store import SessionStore

if TYPE_CHECKING:  # reading one takes pandas, which a server without it does not wait for
    from sessrec.features.availability import Availability, ItemIntervals

MOST_KEPT = 2_000_000
"""Most item ids that are kept of what is available."""
_LONGEST_SLEEP = 600.0  # seconds: a clock may be set meanwhile
_N_PROBES = 20  # sessions that a new model is tried on before it serves


class Service:
    """A model that serves, with its queue, its sessions and what is available.

    Args:
        checkpoint: Checkpoint of the model, or the folder of an exported one.
        load: Loads it.
        store: Where sessions are kept; None keeps none.
        most_at_once: Most requests that are answered together.
        most_waiting: Most requests that wait.
        in_loop: See `Batcher`.
        schedule: When items are there; they are recommended at no other time.

    Raises:
        SessRecError: If the checkpoint cannot be served.
    """

    def __init__(
        self,
        checkpoint: Path,
        load: Callable[[Path], Engine],
        store: SessionStore | None,
        most_at_once: int = 64,
        most_waiting: int = 1024,
        in_loop: bool = False,
        schedule: Availability | None = None,
    ) -> None:
        self.checkpoint, self.store, self.measures = checkpoint, store, Measures()
        self._load, self._schedule = load, schedule
        self._intervals: tuple[Sequence[str], ItemIntervals] | None = None
        self._followed_at = 0.0  # time at which the schedule was last looked at
        self.engine = load(checkpoint)
        self._probe(self.engine)
        self._unavailable: set[str] = set()
        self._available: list[str] | None = None  # all where None
        self._changing = threading.Lock()
        self.engine = self._with_availability(self.engine) if schedule is not None else self.engine
        self.batcher = Batcher(
            lambda requests: self.engine.answer(requests), most_at_once, most_waiting, self.measures.batch, in_loop
        )
        self.measures.of_model(self.engine.origin)

    async def recommend(self, request: Request, seconds: float | None = None) -> Answer:
        """The list of a request with a place in the queue; popular items where the model has none in time.

        Args:
            request: The request.
            seconds: Time after which popular items are given; None waits.
        """
        future = self.batcher.submit(request)
        try:
            return await asyncio.wait_for(future, seconds)
        except (TimeoutError, asyncio.TimeoutError):
            return self.engine.popular(request, "deadline")

    # -- what is available -------------------------------------------------------------------------------------------

    def set_available(self, item_ids: Sequence[str] | None) -> int:
        """Recommend some items only, all where None; gives how many of the model's items these are."""
        with self._changing:
            self._available, self._unavailable = None if item_ids is None else list(item_ids), set()
            return self._apply_availability()

    def change_available(self, add: Sequence[str], remove: Sequence[str]) -> int:
        """Recommend some more items, and others no longer; gives how many can be."""
        with self._changing:
            available = None if self._available is None else [*dict.fromkeys([*self._available, *add])]
            unavailable = (self._unavailable - set(add)) | set(remove)
            if max(len(unavailable), len(available or ())) > MOST_KEPT:
                raise SessRecError(f"more than {MOST_KEPT:,} item ids would be kept: give all that is available")
            self._available, self._unavailable = available, unavailable
            return self._apply_availability()

    def _apply_availability(self) -> int:
        self.engine = self._with_availability(self.engine)
        return self.engine.n_available

    def _with_availability(self, engine: Engine) -> Engine:
        gone = self._unavailable
        if self._schedule is not None:
            self._followed_at = time.time()
            is_there = self._intervals_of(engine).at(self._followed_at)
            gone = gone | {engine.item_ids[item] for item in np.flatnonzero(~is_there).tolist()}
        return engine.with_availability(self._available, sorted(gone))

    def _intervals_of(self, engine: Engine) -> ItemIntervals:
        """When the items of a model are there; found once for the same items."""
        assert self._schedule is not None
        kept = self._intervals
        if kept is None or kept[0] is not engine.item_ids:
            self._intervals = kept = engine.item_ids, self._schedule.of(engine.item_ids)
        return kept[1]

    async def follow_schedule(self) -> None:
        """Have items come and go at their times, for ever; return at once where there is no schedule."""
        loop = asyncio.get_running_loop()
        while self._schedule is not None:
            change = self._intervals_of(self.engine).next_change(self._followed_at)
            wait = min(change - time.time(), _LONGEST_SLEEP)
            if wait > 0:
                await asyncio.sleep(wait)
            await loop.run_in_executor(None, self._follow)  # which may wait for a model that is loaded

    def _follow(self) -> None:
        with self._changing:
            self._apply_availability()

    # -- reload ------------------------------------------------------------------------------------------------------

    def reload(self, checkpoint: Path | None = None, any_catalogue: bool = False) -> Engine:
        """Load a checkpoint beside the model that serves, try it, and have it serve from the next batch on.

        Args:
            checkpoint: The checkpoint; the one that was given at the start where None.
            any_catalogue: Whether its items may be others than those that are served.

        Raises:
            SessRecError: If it cannot be served; the model that serves stays.
        """
        with self._changing:
            try:
                engine = self._load(checkpoint or self.checkpoint)
                own, new = (set(e.item_ids) for e in (self.engine, engine))
                if own != new and not any_catalogue:
                    raise SessRecError(
                        f"the checkpoint knows {len(new - own):,} items that the model that serves does not, and lacks "
                        f"{len(own - new):,} of its items: any_catalogue true takes it nevertheless"
                    )
                self._probe(engine)
            except Exception:
                self.measures.reloads.labels("refused").inc()
                raise
            self.engine = self._with_availability(engine)
            self.measures.reloads.labels("done").inc()
            self.measures.of_model(self.engine.origin)
            return self.engine

    def _probe(self, engine: Engine) -> None:
        """Have a model answer for some sessions, each of one of its items, and refuse scores that are no numbers."""
        ids = engine.item_ids
        step = max(1, len(ids) // _N_PROBES)
        try:
            answers = engine.answer([Request([item_id], 5) for item_id in ids[::step]])
        except SessRecError as error:
            raise SessRecError(f"the scores of {engine.origin.run} are no numbers: it cannot be served") from error
        if not all(answer.item_ids for answer in answers) and len(ids) > 1:
            raise SessRecError(f"the model of {engine.origin.run} gives no list for a session of one of its own items")

    # -- the end -----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Answer what waits, and let go of the store."""
        await asyncio.get_running_loop().run_in_executor(None, self.batcher.stop)
        if self.store is not None:
            await self.store.close()
