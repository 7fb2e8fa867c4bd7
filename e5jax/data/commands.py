"""`e5jax data prepare` and `passkey`: their options, and what they print. What does the work is imported when it runs."""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from e5jax.data.sets import SETS, named
from e5jax.errors import ConfigError

HUB = "hub"


def add_prepare(actions: Any) -> None:
    """Adds the command to those of `e5jax data`."""
    text = "writes a public set as array_record, which training reads; from files of its publisher, or from the hub"
    preparer = actions.add_parser("prepare", help=text, description=text, allow_abbrev=False)
    preparer.set_defaults(go=_prepare, refuse=preparer.error)
    preparer.add_argument("name", nargs="?", metavar="NAME", help="of the set; --list names them")
    preparer.add_argument("--list", action="store_true", help="prints all sets: source, licence, formats, instructions, ratio")
    sources = f"files and folders as its publisher wrote them, or `{HUB}` to download them"
    preparer.add_argument("--from", dest="sources", nargs="+", default=[], metavar="FILE", help=sources)
    preparer.add_argument("--output", type=Path, metavar="DIR", help="writes DIR/NAME/VERSION; replaces only its own")
    preparer.add_argument("--format", default="auto", metavar="FORMAT", help="of the files, as in convert (default: %(default)s)")
    preparer.add_argument("--language", default="", metavar="CODE", help="where neither set nor names of files tell it")
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
    from e5jax.data.download import Downloaded, from_hub
    from e5jax.data.prepare import REJECTS, Order, prepare

    files = nullcontext(Downloaded([Path(source) for source in args.sources], []))
    with from_hub(chosen) if args.sources == [HUB] else files as found:
        sums = {name: value.lower() for name, _, value in (pair.rpartition("=") for pair in args.sha256)}
        order = Order(chosen, found.sources, found.revisions, args.format, args.language, sums)
        folder, counts = prepare(order, args.output)
    print(counts)
    print(f"data: {folder}; what was left out: {folder / REJECTS}", flush=True)


def add_passkey(actions: Any) -> None:
    """Adds the command to those of `e5jax data`."""
    text = "writes passkey retrieval: a task a length, each of texts that hold one line worth finding, and records to train on"
    maker = actions.add_parser("passkey", help=text, description=text, allow_abbrev=False)
    maker.set_defaults(go=_passkey)
    lengths = "tokens of the documents, such as 256,4096,32768"
    maker.add_argument("--lengths", required=True, metavar="N,M", help=lengths)
    maker.add_argument("--output", type=Path, required=True, metavar="DIR", help="writes DIR/passkey-N; replaces only its own")
    tokenizer = "tokenizer.json that counts them, or a folder with one (default: one is made, for a model from scratch)"
    maker.add_argument("--tokenizer", type=Path, metavar="FILE", help=tokenizer)
    for name, count, said in [
        ("queries", 50, "of each length"),
        ("documents", 100, "of each length, all of them candidates"),
        ("examples", 0, "to train on, of the shortest length, in passkey-N/train.jsonl; their names are not those of the tasks"),
        ("seed", 0, "of names, keys and places"),
    ]:
        maker.add_argument(f"--{name}", type=int, default=count, metavar="N", help=f"{said} (default: %(default)s)")


def _passkey(args: argparse.Namespace, overrides: list[str]) -> None:
    if overrides:
        raise ConfigError(f"{overrides[0]}: `e5jax data passkey` takes no --config")
    from e5jax.data.passkey import Plan, write_passkey

    parts = [part for part in args.lengths.split(",") if part]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--lengths={args.lengths}: must be whole numbers, separated by commas")
    plan = Plan([int(part) for part in parts], args.queries, args.documents, args.examples, args.seed)
    file = args.tokenizer / "tokenizer.json" if args.tokenizer and args.tokenizer.is_dir() else args.tokenizer
    write_passkey(plan, file, args.output)
    print("\n".join(f"task: {args.output / f'passkey-{length}'}" for length in plan.lengths), flush=True)


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
