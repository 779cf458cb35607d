"""Wait on an event loop for what a thread will tell, without being a part of that loop."""

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from typing import Any


async def until_done(future: Future[Any], timeout: float) -> None:  # noqa: ASYNC109  # of several loops
    """Return when *future* is done, or after *timeout* seconds.  Cancelling one waiter cancels no other."""
    loop = asyncio.get_running_loop()
    is_done = asyncio.Event()

    def tell(_: Future[Any]) -> None:
        # Who waited may be gone, with its loop.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(is_done.set)

    future.add_done_callback(tell)
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await is_done.wait()
