"""`e5jax data ACTION`: the options of each action, and what it runs.

An action is one function here that adds its parser and one that runs it, which imports what it needs when it runs:
`e5jax --help` waits for no library.
"""

import argparse
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e5jax.datasets.public_sets import SETS, named
from e5jax.errors import CONFIG, DONE, ConfigError

if TYPE_CHECKING:
    Actions = argparse._SubParsersAction[argparse.ArgumentParser]

INPUT = "JSONL files or patterns such as 'data/*.jsonl'; may be given again"
Go = Callable[[argparse.Namespace], int | None]  # gives the exit code, None for 0
ConfigGo = Callable[
    [argparse.Namespace, list[str]], int | None
]  # also takes the overrides --config.x=v


def add_actions(stage: argparse.ArgumentParser) -> None:
    """Adds all actions to the parser of `e5jax data`, which without one of them builds the data of a config."""
    actions = stage.add_subparsers(dest="action", metavar="ACTION")
    _add_convert(actions)
    _add_clean(actions)
    _add_inspect(actions)
    _add_validate(actions)
    add_prepare(actions)
    _add_shares(actions)
    stage.set_defaults(
        refuse=lambda: stage.error(
            f"--config=FILE is missing; or name an action: {', '.join(actions.choices)}"
        )
    )


def _action(actions: "Actions", name: str, go: Go, text: str) -> argparse.ArgumentParser:
    """The parser of an action that takes no configuration."""

    def checked(args: argparse.Namespace, overrides: list[str]) -> int | None:
        if given := [*overrides, *([f"--config={args.config}"] if args.config else [])]:
            raise ConfigError(f"{given[0]}: `e5jax data {name}` takes no --config")
        return go(args)

    return _config_action(actions, name, checked, text)


def _config_action(
    actions: "Actions", name: str, go: ConfigGo, text: str
) -> argparse.ArgumentParser:
    """The parser of an action that adds a --config of its own; `load(args.config, overrides)` reads it."""
    made = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
    made.set_defaults(run=go)
    return made


def _add_convert(actions: "Actions") -> None:
    text = "writes data in any format that docs/data.md lists as JSONL, and beside it what was left out and why"
    action = _action(actions, "convert", _convert, text)
    action.add_argument(
        "--from",
        dest="format",
        default="auto",
        metavar="FORMAT",
        help="its name (default: %(default)s)",
    )
    action.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="PATH",
        help="file or folder; of datasets also owner/name",
    )
    action.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSONL file to write; replaces only its own",
    )
    action.add_argument(
        "--instruction", default="", metavar="TEXT", help="bare task, for formats that have none"
    )
    action.add_argument(
        "--language", default="", metavar="CODE", help="ISO code, for formats that have none"
    )
    action.add_argument(
        "--source", default="", metavar="NAME", help="name of the set (default: that of the file)"
    )
    action.add_argument(
        "--split",
        default="train",
        metavar="NAME",
        help="of beir, msmarco and datasets (default: %(default)s)",
    )
    columns = "columns of tables: query=title,positive=body"
    action.add_argument("--columns", default="", metavar="OURS=THEIRS,…", help=columns)
    threshold = "least label or score of a positive, for pairs that have one (default: labels must be 0 or 1)"
    action.add_argument("--threshold", type=float, metavar="X", help=threshold)
    action.add_argument(
        "--ratio",
        type=float,
        metavar="X",
        help="most decompressed bytes per compressed one (default: 200)",
    )


def _convert(args: argparse.Namespace) -> None:
    from e5jax.datasets.convert import convert, rejects_of
    from e5jax.datasets.readers.result import Limits, Options

    pairs = [pair.partition("=") for pair in args.columns.split(",") if pair]
    limits = Limits() if args.ratio is None else Limits(ratio=args.ratio)
    columns = {ours: theirs for ours, _, theirs in pairs}
    if args.threshold is not None and math.isnan(args.threshold):
        raise ConfigError(f"--threshold={args.threshold}: must be a number")
    options = Options(
        args.instruction,
        args.language,
        args.source,
        args.split,
        columns,
        limits,
        threshold=args.threshold,
    )
    print(convert(args.input, args.output, args.format, options))
    print(f"data: {args.output}; what was left out: {rejects_of(args.output)}", flush=True)


def _add_clean(actions: "Actions") -> None:
    text = "writes training files without copies and without what models are evaluated on, and what was removed and why"
    action = _action(actions, "clean", _clean, text)
    action.add_argument(
        "--input", nargs="+", action="extend", required=True, metavar="FILE", help=INPUT
    )
    output = "folder to write: data/, removed.jsonl, clean.json; replaced if this command wrote it"
    action.add_argument("--output", type=Path, required=True, metavar="DIR", help=output)
    evaluation = (
        "folders in BEIR layout, or texts.jsonl of `e5jax eval --texts`; may be given again"
    )
    action.add_argument(
        "--evaluation",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="PATH",
        help=evaluation,
    )
    queries = "looks for evaluation queries, not for documents: many training sets are made of the same corpora"
    action.add_argument("--queries-only", action="store_true", help=queries)
    parts = "parts of an example that evaluation texts are looked for in (default: %(default)s)"
    action.add_argument("--parts", default="query,positive,negative", metavar="A,B", help=parts)
    threshold = "Jaccard similarity of words and pairs of words from which on texts are copies (default: %(default)s)"
    action.add_argument("--threshold", type=float, default=0.6, metavar="X", help=threshold)
    share = "share of a text's runs of 8 words from which on it is inside another (default: %(default)s)"
    action.add_argument("--share", type=float, default=0.7, metavar="X", help=share)
    action.add_argument(
        "--keep-duplicates", action="store_true", help="looks for evaluation texts only"
    )


def _clean(args: argparse.Namespace) -> None:
    from e5jax.data.source import jsonl
    from e5jax.datasets.clean import Rules, clean, summary
    from e5jax.datasets.contamination import evaluation_texts

    rules = Rules(
        args.threshold, args.share, tuple(filter(None, args.parts.split(","))), args.keep_duplicates
    )
    made = clean(
        jsonl(args.input),
        args.output,
        evaluation_texts(args.evaluation, not args.queries_only),
        rules,
    )
    print(summary(made))
    print(
        f"data: {args.output / 'data'}; what was removed and why: {args.output / 'removed.jsonl'}",
        flush=True,
    )


def _add_inspect(actions: "Actions") -> None:
    text = "writes a page that shows what training files hold: counts, lengths, languages, instructions, examples"
    action = _action(actions, "inspect", _inspect, text)
    action.add_argument(
        "--input", nargs="+", action="extend", required=True, metavar="FILE", help=INPUT
    )
    action.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="HTML file to write; replaces only its own",
    )
    action.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer.json, or a folder with one (default: counts words)",
    )
    sample = "records whose texts are measured, taken at random; counts are of all (default: %(default)s)"
    action.add_argument("--sample", type=int, default=10_000, metavar="N", help=sample)
    action.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of what is taken at random (default: %(default)s)",
    )


def _inspect(args: argparse.Namespace) -> None:
    from e5jax.data.source import jsonl
    from e5jax.datasets.inspection import inspect

    if args.sample < 1:
        raise ConfigError(f"--sample={args.sample}: must be at least 1")
    inspect(jsonl(args.input), args.output, args.tokenizer, args.sample, args.seed)
    print(f"page: {args.output}", flush=True)


def _add_validate(actions: "Actions") -> None:
    text = "lists everything that is wrong with training files, as file:line: reason; exit code 3 if there is anything"
    action = _config_action(actions, "validate", _validate, text)
    what = action.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config",
        metavar="FILE",
        help="Python config file: its data; --config.field=value overrides it",
    )
    what.add_argument("--input", nargs="+", action="extend", metavar="FILE", help=INPUT)
    action.add_argument(
        "--negatives",
        type=int,
        metavar="N",
        help="hard negatives that each line of --input needs (default: 0)",
    )


def _validate(args: argparse.Namespace, overrides: list[str]) -> int:
    from e5jax.config.load import load
    from e5jax.data.source import Needs, expand
    from e5jax.datasets.problems import Wanted, report_problems, wanted_of

    if args.config is None:
        if overrides:
            raise ConfigError(f"{overrides[0]}: `e5jax data validate --input` takes no --config")
        wanted = [Wanted(expand(args.input, "--input"), Needs(args.negatives or 0))]
    else:
        if args.negatives is not None:
            raise ConfigError(
                f"--negatives={args.negatives}: the configuration says how many; set --config.batch.negatives"
            )
        wanted = list(wanted_of(load(args.config, overrides)))
    counts = report_problems(wanted, print)
    print(counts, flush=True)
    return CONFIG if counts.rejected else DONE


def _add_shares(actions: "Actions") -> None:
    text = "prints how many examples of each set a config's run takes; exit code 3 if it cannot be trained on them"
    action = _config_action(actions, "shares", _shares, text)
    action.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="Python config file; --config.field=value overrides it",
    )
    harvest = "directory of the run, of whose harvest (default: runs/ and the config's name)"
    action.add_argument("--workdir", type=Path, metavar="DIR", help=harvest)
    action.add_argument("--json", action="store_true", help="prints one JSON object a set")


def _shares(args: argparse.Namespace, overrides: list[str]) -> None:
    from e5jax.config.load import load
    from e5jax.datasets.proportions import as_json, proportions, table
    from e5jax.workdir.directory import DEFAULT_RUNS, Workdir

    config = load(args.config, overrides)
    workdir = Workdir(args.workdir or DEFAULT_RUNS / Path(args.config).stem)
    found = proportions(config, config.data.files or (workdir.data / "train.jsonl",))
    print(as_json(found) if args.json else table(found, config))


HUB = "hub"


def add_prepare(actions: Any) -> None:
    """Adds the command to those of `e5jax data`."""
    text = "writes a public set as array_record, which training reads; from files of its publisher, or from the hub"
    preparer = actions.add_parser("prepare", help=text, description=text, allow_abbrev=False)
    preparer.set_defaults(run=_prepare, refuse=preparer.error)
    preparer.add_argument("name", nargs="?", metavar="NAME", help="of the set; --list names them")
    preparer.add_argument(
        "--list",
        action="store_true",
        help="prints all sets: source, licence, formats, instructions, ratio",
    )
    sources = f"files and folders as its publisher wrote them, or `{HUB}` to download them"
    preparer.add_argument(
        "--from", dest="sources", nargs="+", default=[], metavar="FILE", help=sources
    )
    preparer.add_argument(
        "--output", type=Path, metavar="DIR", help="writes DIR/NAME/VERSION; replaces only its own"
    )
    preparer.add_argument(
        "--format",
        default="auto",
        metavar="FORMAT",
        help="of the files, as in convert (default: %(default)s)",
    )
    preparer.add_argument(
        "--language",
        default="",
        metavar="CODE",
        help="where neither set nor names of files tell it",
    )
    sums = "what the checksums of files must be; those of all files are written to manifest.json"
    preparer.add_argument("--sha256", nargs="+", default=[], metavar="FILE=HEX", help=sums)


def _prepare(args: argparse.Namespace, overrides: list[str]) -> None:
    if overrides:
        raise ConfigError(f"{overrides[0]}: `e5jax data prepare` takes no --config")
    if args.list:
        print(table())
        return
    if not (args.name and args.sources and args.output):
        args.refuse("NAME, --from and --output are needed; or --list")
    chosen = named(args.name)
    from e5jax.datasets.download import Downloaded, from_hub
    from e5jax.datasets.prepare import REJECTS, Order, prepare

    files = nullcontext(Downloaded([Path(source) for source in args.sources], []))
    with from_hub(chosen) if args.sources == [HUB] else files as found:
        sums = {
            name: value.lower() for name, _, value in (pair.rpartition("=") for pair in args.sha256)
        }
        order = Order(chosen, found.sources, found.revisions, args.format, args.language, sums)
        folder, counts = prepare(order, args.output)
    print(counts)
    print(f"data: {folder}; what was left out: {folder / REJECTS}", flush=True)


def table() -> str:
    """All sets, for a terminal."""
    lines = []
    for chosen in SETS:
        hub = ", ".join(dict.fromkeys(repository for repository, _ in chosen.hub))
        lines += [
            f"{chosen.name}: {chosen.title}",
            f"  ratio        {chosen.ratio:g}",
            *(f"  instruction  {text}" for text in chosen.instructions or ("its records' own",)),
            f"  languages    {' '.join(chosen.languages) or 'those of its records'}",
            f"  licence      {chosen.licence}",
            f"  formats      {', '.join(chosen.all_formats)}",
            *(f"  download     {file}" for file in chosen.files),
            *([f"  hub          {hub}"] if hub else []),
        ]
    return "\n".join(lines)
