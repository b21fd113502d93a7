"""Work that processes share, its results in their order."""

import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from types import ModuleType
from typing import Any, TypeVar

from joblib import cpu_count

from pixel_spotter.cli.placement import free_memory
from pixel_spotter.errors import UserError

_Note = TypeVar("_Note")

_IMPORTED = 2**29
"""So much memory a process takes that has imported everything, bytes."""

_MASKS = hasattr(signal, "pthread_sigmask")  # not on Windows


def most(each: float) -> int:
    """Return how many processes, of which each takes so many bytes, cores and memory allow."""
    return int(max(1, min(cpu_count(), free_memory() / (_IMPORTED + each))))


def shared(
    work: Callable[..., Any], jobs: Iterable[tuple[tuple[Any, ...], _Note]], processes: int
) -> Iterator[tuple[Any, _Note]]:
    """Yield what ``work`` returns, in the order of jobs, which are its arguments, with their notes.

    No more jobs are taken than the processes have to do next.

    Raises:
        UserError: if a process was ended from outside.
    """
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin)
    waiting: deque[tuple[Future[Any], _Note]] = deque()
    try:
        for arguments, note in jobs:
            # By value: what tensors are sent by otherwise has room for few in many containers.
            with _nothing_to_import():
                future = pool.submit(_work, pickle.dumps((work, arguments)))
            waiting.append((future, note))
            if len(waiting) > 2 * processes:
                yield _ended(*waiting.popleft())
        while waiting:
            yield _ended(*waiting.popleft())
    except BrokenProcessPool as error:
        raise UserError(
            "a process was ended from outside, perhaps as memory is short; processes=1 needs least"
        ) from error
    except BaseException:  # interrupted, or no longer wanted: what is at work would be waited for
        for process in [*(pool._processes or {}).values()]:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _nothing_to_import() -> Iterator[None]:
    """Have a process that starts not import the whole command that started it, which takes seconds.

    It does so as functions of ``__main__`` may be its work: not here.
    """
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    # Inherited, until `_begin`: imports that are interrupted show their tracebacks.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if _MASKS else None
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ended(future: Future[Any], note: _Note) -> tuple[Any, _Note]:
    return future.result(), note


def _work(job: bytes) -> Any:
    work, arguments = pickle.loads(job)
    return work(*arguments)


def _begin() -> None:
    """End without a word when interrupted, and with the process that began this one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _MASKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
