"""trimtab-export: makes a bundle from a training run, or checks a bundle and shows it."""

import argparse
import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from trimtab.manifest import FLAT

from exporters.errors import ExportError
from exporters.index_kinds import KINDS
from exporters.progress import STAGES, Report
from exporters.show import print_carried, print_details, print_summary

if TYPE_CHECKING:  # it needs torch, which takes seconds to load
    from exporters.carry_over import CarriedOver
    from exporters.choose_index import IndexOptions
    from exporters.contents import BundleContents
    from training.run import Run

BUNDLES = Path("bundles")
"""Directory of bundles whose own is not given."""

GAINS = ("ridge",)
"""The methods of training.concepts.gains.GAINS, whose module would load torch."""

_EXPORT_OPTIONS = (
    "out",
    "max_history",
    "labels",
    "concepts_from",
    "gains",
    "index",
    "flat_limit",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, 1 for a refused run or bundle, 2 for wrong arguments.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    _check_arguments(parser, arguments)
    console = Console()
    try:
        if arguments.inspect is not None:
            return _inspect(console, arguments.inspect)
        return _export(console, arguments)
    except (ExportError, OSError) as error:
        return _fail(error)
    except KeyboardInterrupt:
        return _fail("interrupted: nothing was published")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimtab-export",
        description="Make a bundle from a training run, or check a bundle and show it.",
    )
    parser.add_argument(
        "run", type=Path, nargs="?", metavar="RUN", help="directory that trimtab-train wrote"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="BUNDLE",
        help=f"directory to make; never overwritten (default: {BUNDLES}/ and the run's name)",
    )
    _add_content_options(parser)
    _add_index_options(parser)
    parser.add_argument(
        "--inspect", type=Path, metavar="BUNDLE", help="check a bundle and show its contents"
    )
    return parser


def _add_content_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that change what a bundle holds."""
    parser.add_argument(
        "--max-history",
        type=int,
        metavar="N",
        help="the encoder reads a user's newest N positive items, 1 to 1000 (default: the longest "
        "history of a training user, but not more than the run itself read)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="labels of neurons that replace the run's: JSON lines, as trimtab-evaluate dictionary "
        "writes them",
    )
    parser.add_argument(
        "--concepts-from",
        type=Path,
        metavar="OLD",
        help="an earlier bundle, whose names are carried over if they still mean the same",
    )
    parser.add_argument(
        "--old-labels",
        type=Path,
        metavar="FILE",
        help="the earlier bundle's label set as `trimtab concepts export` wrote it, instead of the "
        "one in the bundle",
    )
    parser.add_argument(
        "--gains",
        choices=GAINS,
        help="BOOST moves each item by how likely it carries the concept, even if its tag is "
        "missing (default: BOOST moves the items that have the tag)",
    )


def _add_index_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the index."""
    parser.add_argument(
        "--index",
        choices=(FLAT, *KINDS),
        help="kind of index to use if it finds 95 %% of the exact best; else every item is scored "
        "(default: the quickest kind that finds enough, by measurement)",
    )
    parser.add_argument(
        "--flat-limit",
        type=int,
        metavar="N",
        help="score every item in catalogues of up to N items (default: 10,000)",
    )


def _check_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the command with status 2 if options do not fit each other."""
    if (arguments.run is None) == (arguments.inspect is None):
        parser.error("give either a RUN to export or --inspect BUNDLE")
    if arguments.inspect is not None:
        given = [option for option in _EXPORT_OPTIONS if getattr(arguments, option) is not None]
        if given:
            option = given[0].replace("_", "-")
            parser.error(f"--{option} belongs to an export, not to --inspect")
    if arguments.old_labels is not None and arguments.concepts_from is None:
        parser.error("--old-labels belongs to --concepts-from")


# The imports within the functions below load torch, onnxruntime and faiss, which takes a second or
# two: --help and wrong arguments need not wait for them.


def _inspect(console: Console, directory: Path) -> int:
    from exporters.sealed import verify_files
    from service.bundle.bundle import BundleError

    try:
        manifest = verify_files(directory)
    except BundleError as error:
        return _fail(error)
    print_details(console, directory, manifest)
    return 0


def _export(console: Console, arguments: argparse.Namespace) -> int:
    from exporters.publish import check_output, write_bundle
    from service.bundle.bundle import BundleError
    from training.errors import TrainingError

    begin = time.monotonic()
    begin_time = datetime.now(UTC)
    out = arguments.out or BUNDLES / arguments.run.resolve().name
    try:
        with _progress(console) as report:
            check_output(out)
            prepared = _prepare(arguments)
            contents = _contents(prepared.run, arguments, report)
            manifest = write_bundle(contents, out, report=report, index=_index_options(arguments))
    except (BundleError, TrainingError) as error:
        return _fail(error)
    if prepared.carried is not None:
        print_carried(console, arguments.concepts_from, prepared.carried)
    new = manifest.create_time.ToDatetime(tzinfo=UTC) >= begin_time
    print_summary(console, out, manifest, seconds=time.monotonic() - begin, new=new)
    return 0


class _Prepared(NamedTuple):
    """A run with the labels and concepts that were asked for."""

    run: "Run"
    carried: "CarriedOver | None"


def _prepare(arguments: argparse.Namespace) -> _Prepared:
    """Loads the run and applies --labels and --concepts-from."""
    from exporters.carry_over import carry_over
    from exporters.labels import read_labels
    from exporters.previous_bundle import read_previous_bundle
    from training.run import load_run

    run = load_run(arguments.run)
    if arguments.labels is not None:
        names = {concept.name for concept in run.concepts}
        labels = read_labels(arguments.labels, run.sae.n_neurons, names)
        run = dataclasses.replace(run, labels=labels)
    if arguments.concepts_from is None:
        return _Prepared(run, None)
    previous = read_previous_bundle(arguments.concepts_from, arguments.old_labels)
    carried = carry_over(previous, run)
    return _Prepared(carried.run, carried)


def _contents(run: "Run", arguments: argparse.Namespace, report: Report) -> "BundleContents":
    from exporters.from_run import contents_of

    return contents_of(run, arguments.max_history, report, arguments.gains)


def _index_options(arguments: argparse.Namespace) -> "IndexOptions":
    from exporters.choose_index import IndexOptions

    given: dict[str, Any] = {}
    if arguments.index is not None:
        given = {"kinds": (arguments.index,), "flat_limit": 0}
    if arguments.flat_limit is not None:
        given["flat_limit"] = arguments.flat_limit
    return IndexOptions(**given)


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Report]:
    """Shows the stages in a bar, and yields the function that reports them."""
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

        yield report


def _fail(reason: object) -> int:
    Console(stderr=True, soft_wrap=True).print(f"[red]error:[/] {reason}", highlight=False)
    return 1


if __name__ == "__main__":
    sys.exit(main())
