"""Runs trimtab-serve: one process that serves, or a supervisor of several."""

import logging
import sys

from service.errors import StartError
from service.settings import read_settings


def main() -> None:
    """Serves until a signal; if the server cannot start, prints why and exits with status 1."""
    settings = read_settings()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # The supervisor of several workers imports neither grpc, faiss nor onnxruntime.
    if settings.workers == 1:
        from service.process.server import serve
    else:
        from service.process.supervisor import serve
    try:
        serve(settings)
    except StartError as error:
        sys.exit(f"trimtab-serve: {error}")
