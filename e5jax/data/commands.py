"""`e5jax data prepare`: its options, and what it prints. What does the work is imported when it runs."""

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
    preparer.add_argument("--output", type=Path, metavar="DIR", help="writes DIR/NAME/VERSION; replaced if it is there")
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
