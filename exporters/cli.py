"""trimtab-export: makes a bundle from a training run, or shows what a bundle is."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from trimtab.manifest import FLAT
from trimtab.v1.bundle_pb2 import BundleManifest

from exporters.errors import ExportError
from exporters.index_kinds import KINDS
from exporters.progress import STAGES
from exporters.sealed import verify_files
from exporters.show import print_carried, print_details, print_summary

if TYPE_CHECKING:  # it needs torch, which takes seconds to load
    from exporters.choose_index import IndexOptions

BUNDLES = Path("bundles")
GAINS = ("ridge",)
"""training.concepts.gains.GAINS, which would load torch."""
_OF_EXPORT = ("out", "max_history", "labels", "concepts_from", "gains", "index", "flat_limit")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, 1 for a refused run or bundle, 2 for wrong arguments."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if (arguments.run is None) == (arguments.inspect is None):
        parser.error("give either a RUN to export or --inspect BUNDLE")
    if arguments.inspect is not None:
        given = [option for option in _OF_EXPORT if getattr(arguments, option) is not None]
        if given:
            option = given[0].replace("_", "-")
            parser.error(f"--{option} belongs to an export, not to --inspect")
    if arguments.old_labels is not None and arguments.concepts_from is None:
        parser.error("--old-labels belongs to --concepts-from")
    console = Console()
    try:
        if arguments.inspect is not None:
            print_details(console, arguments.inspect, verify_files(arguments.inspect))
            return 0
        out = arguments.out or BUNDLES / arguments.run.resolve().name
        return _export(console, arguments, out)
    except (ExportError, OSError) as error:
        return _fail(error)
    except KeyboardInterrupt:
        return _fail("interrupted: nothing was published")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimtab-export",
        description="Make a bundle from a training run, or show what a bundle is.",
    )
    parser.add_argument(
        "run", type=Path, nargs="?", metavar="RUN", help="directory that trimtab-train wrote"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="BUNDLE",
        help=f"directory to make; never overwritten (default: {BUNDLES}/NAME, NAME being the run's)",
    )
    parser.add_argument(
        "--max-history",
        type=int,
        metavar="N",
        help="the encoder reads a user's newest N positive items, 1 to 1000 (default: the longest history "
        "of a training user, but not more than the run itself read)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="neurons' labels in place of the run's: JSON lines, as trimtab-evaluate dictionary writes them",
    )
    parser.add_argument(
        "--concepts-from",
        type=Path,
        metavar="OLD",
        help="an earlier bundle, whose names are carried over where they still mean the same",
    )
    parser.add_argument(
        "--old-labels",
        type=Path,
        metavar="FILE",
        help="the earlier bundle's label set as `trimtab concepts export` wrote it, in place of its own",
    )
    parser.add_argument(
        "--gains",
        choices=GAINS,
        help="BOOST moves each item by how likely it carries the concept, also where its tag is missing "
        "(default: items that have the tag, and no others)",
    )
    parser.add_argument(
        "--index",
        choices=(FLAT, *KINDS),
        help="search items this way if it finds 95 %% of the exact best, and exactly if not (default: the "
        "quickest that does, by measurement)",
    )
    parser.add_argument(
        "--flat-limit",
        type=int,
        metavar="N",
        help="catalogues of up to N items are searched exactly, whatever it costs (default: 10,000)",
    )
    parser.add_argument(
        "--inspect", type=Path, metavar="BUNDLE", help="check a bundle and show what is in it"
    )
    return parser


def _export(console: Console, arguments: argparse.Namespace, out: Path) -> int:
    # torch takes a second or two to load, which --help and --inspect need not wait for.
    from exporters.carry_over import carry
    from exporters.from_run import contents_of
    from exporters.labels import read_labels
    from exporters.previous_bundle import read_earlier
    from exporters.publish import refuse_what_is_no_bundle, write_bundle
    from training.errors import TrainingError
    from training.run import load_run

    started, begun = time.monotonic(), datetime.now(UTC)
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(STAGES[0], total=len(STAGES))

        def report(stage: str) -> None:
            progress.update(task, description=stage, completed=STAGES.index(stage))

        refuse_what_is_no_bundle(out)
        try:
            loaded = load_run(arguments.run)
        except TrainingError as error:
            return _fail(error)
        if arguments.labels is not None:
            names = {concept.name for concept in loaded.concepts}
            labels = read_labels(arguments.labels, loaded.sae.n_neurons, names)
            loaded = dataclasses.replace(loaded, labels=labels)
        carried = None
        if arguments.concepts_from is not None:
            carried = carry(read_earlier(arguments.concepts_from, arguments.old_labels), loaded)
            loaded = carried.run
        contents = contents_of(loaded, arguments.max_history, report, arguments.gains)
        manifest: BundleManifest = write_bundle(
            contents, out, report=report, index=_index_options(arguments)
        )
    if carried is not None:
        print_carried(console, arguments.concepts_from, carried)
    made = manifest.create_time.ToDatetime(tzinfo=UTC) >= begun
    print_summary(console, out, manifest, seconds=time.monotonic() - started, new=made)
    return 0


def _index_options(arguments: argparse.Namespace) -> "IndexOptions":
    from exporters.choose_index import IndexOptions

    given: dict[str, Any] = {}
    if arguments.index is not None:
        given = {"kinds": (arguments.index,), "flat_limit": 0}
    if arguments.flat_limit is not None:
        given["flat_limit"] = arguments.flat_limit
    return IndexOptions(**given)


def _fail(reason: object) -> int:
    Console(stderr=True, soft_wrap=True).print(f"[red]error:[/] {reason}", highlight=False)
    return 1


if __name__ == "__main__":
    sys.exit(main())
