"""The modules that a command loads import packages of its extra and of requirements.txt, and no others."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# The functions of these modules are the commands; each imports what it needs when it runs.
MAINS = ("e5jax.cli", "e5jax.datasets.commands")
# Started by programs or by other commands, with the extra that the documentation names.
OTHERS = {
    "e5jax": "",
    "e5jax.eval.stage": "eval",
    "e5jax.export.reference_libraries": "eval",
}
EXTRAS = {
    "e5jax.eval": "eval",
    "e5jax.datasets": "data",
    "e5jax.synth": "synth",
}  # of a command, by its package; others need none


def file_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"


def imports(body: list[ast.stmt]) -> Iterator[str]:
    """Modules that these statements import when they run; what is below TYPE_CHECKING or in a function does not."""
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            assert statement.module is not None
            assert statement.level == 0
            inner = [f"{statement.module}.{alias.name}" for alias in statement.names]
            found = [
                name for name in inner if name.startswith("e5jax.") and file_of(name).is_file()
            ]
            yield from found or [statement.module]
        elif isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            continue
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            yield from imports(
                [one for one in ast.iter_child_nodes(statement) if isinstance(one, ast.stmt)]
            )


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(file_of(module).read_text(encoding="utf-8"))


def loaded(module: str, seen: set[str] | None = None) -> Iterator[tuple[str, str]]:
    """(module of ours, package of others) for all that importing the module loads."""
    seen = set() if seen is None else seen
    parents = [module.rsplit(".", depth)[0] for depth in range(module.count(".") + 1)]
    for one in parents:
        if one in seen:
            continue
        seen.add(one)
        for name in imports(parsed(one).body):
            if name.partition(".")[0] == "e5jax":
                yield from loaded(name, seen)
            else:
                yield one, name.partition(".")[0]


def commands() -> dict[str, str]:
    """The modules that the commands import when they run, with their extras."""
    found = dict(OTHERS)
    for main in MAINS:
        for function in ast.walk(parsed(main)):
            if isinstance(function, ast.FunctionDef):
                for name in imports(function.body):
                    if name.startswith("e5jax."):
                        found[name] = EXTRAS.get(".".join(name.split(".")[:2]), "")
    return found


@cache
def distributions(extra: str) -> frozenset[str]:
    """All that `pip install e5jax[extra]` brings, as far as it is installed here."""
    found, todo = set(), [("e5jax", extra)]
    while todo:
        name, of = todo.pop()
        if (name, of) in found:
            continue
        found.add((name, of))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue  # of another platform
        for line in lines:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": of}):
                inner = canonicalize_name(needed.name)
                todo += [(inner, ""), *((inner, one) for one in needed.extras)]
    return frozenset(name for name, _ in found)


@cache
def providers() -> dict[str, list[str]]:
    return {
        module: [canonicalize_name(name) for name in names]
        for module, names in packages_distributions().items()
    }


@pytest.mark.parametrize(("module", "extra"), sorted(commands().items()))
def test_a_command_imports_nothing_beyond_its_extra(module, extra):
    here = distributions(extra)
    # What no distribution provides belongs to Python.
    beyond = {
        f"{ours} imports {name}"
        for ours, name in loaded(module)
        if name in providers() and here.isdisjoint(providers()[name])
    }
    assert not beyond


def test_the_extras_are_seen():
    assert {"mteb", "torch"} <= distributions("eval")
    assert "torch" not in distributions("data")
    assert {"rensa", "py3langid"} <= distributions("data") - distributions("eval")
    assert ("e5jax.datasets.minhash", "rensa") in set(loaded("e5jax.datasets.clean"))
    assert commands()["e5jax.eval.commands"] == "eval"
