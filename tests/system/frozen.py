"""A client that asks for more than it takes: `python frozen.py URL STATEMENT` sends it and never reads the answer.

The server holds the locks of the statement until it has sent all of the answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from core.sessions import connect


async def main(url: str, statement: str) -> None:
    connection = await connect(url, name="frozen")
    pid = await connection.fetchval("select pg_backend_pid()")
    connection._transport.pause_reading()
    asking = asyncio.ensure_future(connection.execute(statement))  # one message, which is sent at once
    await asyncio.sleep(0)
    print(pid, flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    await asking


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
