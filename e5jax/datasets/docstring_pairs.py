"""The quickstart's real data: docstring -> function pairs from the Python sources installed on this machine.

Files of the standard library and of site-packages flow in; `train.jsonl`, `heldout/` in BEIR layout and `summary.json`
flow out. No package is in both halves and no text occurs twice; what is harvested depends on the installed packages only.
"""

import gc
import itertools
import json
import multiprocessing
import os
import platform
import signal
import sysconfig
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from e5jax.config import Harvest
from e5jax.data.records import Example
from e5jax.datasets.functions import Function, Reading, deal, read_package, sha, without_copies
from e5jax.distributed.signals import SIGNALS
from e5jax.errors import ConfigError, RunError

SMALL = (
    5  # a package with more than this many times `heldout_pairs_per_package` is kept for training
)
PROCESSES = 8
OURSELVES = "e5jax"
TESTS = ("test", "tests", "testing", "idle_test", "test_data", "testdata")
COPIES = (
    "_vendor",
    "vendor",
    "vendored",
    "_vendored",
    "third_party",
    "thirdparty",
    "extern",
    "externals",
    "_distutils",
)
SKIPPED_FOLDERS = frozenset(
    (*TESTS, *COPIES, "lib2to3", "site-packages", "dist-packages", "node_modules")
)
SKIPPED_FILES = (
    "test_*.py",
    "*_test.py",
    "*_tests.py",
    "conftest.py",
    "*_pb2.py",
    "*_pb2_grpc.py",
    "__editable__*",
)

Half = dict[str, list[Function]]  # by package


def harvest(spec: Harvest, output: Path) -> dict:
    """Writes `train.jsonl`, `heldout/` and `summary.json` below `output`; returns the summary."""
    return harvest_roots(spec, output, installed_roots())


def harvest_roots(spec: Harvest, output: Path, roots: Iterable[Path]) -> dict:
    """`harvest` of the packages below the given folders."""
    limit = max(spec.train_pairs_per_package, SMALL * spec.heldout_pairs_per_package + 1)
    readings = _read(find_packages(roots), limit)
    train, heldout = _split(spec, readings)
    found = sum(map(len, heldout.values()))
    if found < spec.heldout_pairs:
        raise ConfigError(
            f"config.data.harvest.heldout_pairs={spec.heldout_pairs}: the installed packages gave only {found} pairs for it, "
            f"at most {spec.heldout_pairs_per_package} a package; lower heldout_pairs, raise heldout_pairs_per_package "
            "or install more packages"
        )
    examples = _examples(spec, train)
    output.mkdir(parents=True, exist_ok=True)
    _write_lines(output / "train.jsonl", (example.to_json() for example in examples))
    _write_heldout(output / "heldout", spec, list(deal(list(heldout.values()))))
    summary = {
        "train_pairs": len(examples),
        "heldout_pairs": found,
        "train_packages": dict(Counter(example.source for example in examples).most_common()),
        "heldout_packages": {package: len(functions) for package, functions in heldout.items()},
        "rejected": dict(sum((reading.rejected for reading in readings), Counter()).most_common()),
        "python": platform.python_version(),
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def installed_roots() -> list[Path]:
    """The folders that hold the standard library and site-packages of the running interpreter."""
    paths = sysconfig.get_paths()
    return sorted({Path(paths[name]).resolve() for name in ("stdlib", "purelib", "platlib")})


def find_packages(roots: Iterable[Path]) -> dict[str, list[tuple[Path, str]]]:
    """Files `(path, name below its root)` by top-level package; `_name` belongs to `name`."""
    packages = defaultdict(list)
    for root in roots:
        for path in _python_files(root):
            name = path.relative_to(root)
            packages[name.parts[0].removesuffix(".py").strip("_")].append((path, name.as_posix()))
    packages.pop(OURSELVES, None)
    return dict(packages)


def _python_files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name.lower() not in SKIPPED_FOLDERS]
        for name in names:
            path = Path(folder, name)
            if (
                name.endswith(".py")
                and not any(path.match(pattern) for pattern in SKIPPED_FILES)
                and path.is_file()
            ):
                yield path


def _read(packages: dict[str, list[tuple[Path, str]]], limit: int) -> list[Reading]:
    """Reads all packages, the longest first so that no process is left with it at the end; ordered by hash of the name."""
    names = sorted(packages, key=lambda name: (-len(packages[name]), name))
    # Spawned processes inherit neither threads nor locks of JAX.
    processes = min(PROCESSES, os.cpu_count() or 1)
    with ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_begin
    ) as pool:
        futures = [pool.submit(read_package, name, packages[name], limit) for name in names]
        done = tqdm(
            as_completed(futures), desc="harvest", unit=" packages", total=len(names), disable=None
        )
        try:
            return sorted(
                (future.result() for future in done), key=lambda reading: sha(reading.package)
            )
        except BrokenProcessPool as error:
            raise RunError(
                "a process that reads packages has died, as when the machine runs out of memory; the same command begins again"
            ) from error


def _begin() -> None:
    """In a worker, before its first package."""
    gc.disable()  # syntax trees hold no cycles, and looking for garbage among their millions of nodes doubles the time
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the process that started this one ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker was started by somebody"
    parent.join()
    os._exit(1)


def _split(spec: Harvest, readings: Sequence[Reading]) -> tuple[Half, Half]:
    """Packages to training and held-out, copies left out across all of them."""
    train: Half = {}
    heldout: Half = {}
    missing = spec.heldout_pairs
    seen: set[str] = set()
    for reading in readings:
        functions = without_copies(reading.functions, seen)
        if functions and missing and len(functions) <= SMALL * spec.heldout_pairs_per_package:
            heldout[reading.package] = functions[: min(missing, spec.heldout_pairs_per_package)]
            missing -= len(heldout[reading.package])
        elif len(functions) > 1:  # one alone has no hard negative
            train[reading.package] = functions[: spec.train_pairs_per_package]
    return train, heldout


def _examples(spec: Harvest, train: Half) -> list[Example]:
    """At most `train_pairs` examples, as many from each package as possible without taking more from another."""
    hands = [
        [
            Example(
                function.id,
                function.query,
                (function.code,),
                (negative.code,),
                spec.task,
                source=package,
            )
            for function, negative in zip(functions, _negatives(functions), strict=True)
        ]
        for package, functions in train.items()
    ]
    return list(itertools.islice(deal(hands), spec.train_pairs))


def _negatives(functions: Sequence[Function]) -> list[Function]:
    """For each function the next one of its file, around the end; of the package where it is alone in its file."""
    order = sorted(functions, key=lambda function: (function.file, function.line))
    followers = dict(zip(order, [*order[1:], order[0]], strict=True))
    for _, group in itertools.groupby(order, key=lambda function: function.file):
        first, *rest = group
        if rest:
            followers[rest[-1]] = first
    return [followers[function] for function in functions]


def _write_heldout(folder: Path, spec: Harvest, functions: Sequence[Function]) -> None:
    """A BEIR folder: each function's docstring is a query, and all functions are its candidates."""
    (folder / "qrels").mkdir(parents=True)
    _write_lines(
        folder / "corpus.jsonl", (_json(_id=f.id, title="", text=f.code) for f in functions)
    )
    _write_lines(folder / "queries.jsonl", (_json(_id=f.id, text=f.query) for f in functions))
    _write_lines(
        folder / "qrels/test.tsv",
        ("query-id\tcorpus-id\tscore", *(f"{f.id}\t{f.id}\t1" for f in functions)),
    )
    _write_lines(folder / "task.json", [_json(instruction=spec.task)])


def _json(**fields: str) -> str:
    return json.dumps(fields, ensure_ascii=False)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
