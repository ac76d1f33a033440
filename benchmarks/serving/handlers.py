"""Serves the two handlers that a server is compared with.

    python -m benchmarks.serving.handlers --answer FILE [--bundle DIR]


A grpc.aio server whose handler answers the bytes of FILE to every call, and nothing else; with a
bundle it searches that bundle's FAISS index for one stored query before. Prints its port.
"""

import argparse
from itertools import cycle
from pathlib import Path

import faiss
import grpc
import numpy as np
import uvloop

N = 20


async def serve(answer: bytes, bundle: Path | None) -> None:
    async def empty(_data: bytes, _context: object) -> bytes:
        return answer

    behave = empty
    if bundle is not None:
        faiss.omp_set_num_threads(1)
        if (bundle / "items.faiss").exists():
            index = faiss.read_index(str(bundle / "items.faiss"))
        else:
            items = np.load(bundle / "items.npy")
            index = faiss.IndexFlatIP(items.shape[1] - 1)
            index.add(np.ascontiguousarray(items[:, :-1]))
        queries = cycle(np.load(bundle / "reference.npz")["steered_queries"][:, None, :])

        async def search(_data: bytes, _context: object) -> bytes:
            index.search(next(queries), N)
            return answer

        behave = search
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(behave)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench", {"Call": handler}),)
    )
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--answer", type=Path, required=True)
    parser.add_argument("--bundle", type=Path)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.answer.read_bytes(), arguments.bundle))


if __name__ == "__main__":
    main()
