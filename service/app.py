"""trimtab-serve: one process that serves, or several behind one port."""

import logging
import sys

from service.settings import read_settings


def main() -> None:
    """Serves until a signal; a start that cannot be says why and exits with 1."""
    settings = read_settings()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # The process that only watches over others imports neither grpc, faiss nor onnxruntime.
    if settings.workers == 1:
        from service.process.server import FAULTS, serve
    else:
        from service.process.supervisor import FAULTS, serve
    try:
        serve(settings)
    except FAULTS as error:
        sys.exit(f"trimtab-serve: {error}")
