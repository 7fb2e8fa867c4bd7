"""Documented functions of Python sources: what a docstring says, and the code without it.

Source text flows in, `Function`s and counts of what was rejected flow out. Nothing is imported or run; this file itself
needs the standard library only, so that worker processes start quickly.
"""

import ast
import hashlib
import inspect
import itertools
import re
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

Card = TypeVar("Card")
Definition = ast.FunctionDef | ast.AsyncFunctionDef

FILE_BYTES = 300_000
STATEMENTS = 3
CODE_LINES = 100
WORDS = range(4, 61)

_DOCSTRING = re.compile(r"""^[ \t]+[rRuU]?["']""", re.MULTILINE)
_ROLE = re.compile(
    r":[\w:+-]+:`(?:~[\w.]*\.)?([^`<]+?)(?:\s*<[^`]*>)?`"
)  # reST :class:`~pkg.Name`, :ref:`text <target>`
_SECTION = re.compile(
    r"^\s*((args?|arguments?|param(eter)?s?|returns?|raises?|yields?|examples?|usage|notes?|attributes|keyword args|inputs?"
    r"|outputs?)\s*:|[:@](param|type|returns?|rtype|raises?|arg|keyword)\b|\.\. |>>>|```|\W*[-=~]{3,}\s*$|[-*+•] |\d+[.)] )",
    re.IGNORECASE,
)
_REJECTED = (
    ("TODO", re.compile(r"\b(TODO|FIXME|XXX)\b")),
    (
        "deprecated",
        re.compile(
            r"\bdeprecat|\bobsolete\b|no longer (used|supported)|backwards?[- ]compat",
            re.IGNORECASE,
        ),
    ),
    (
        "signature",
        re.compile(r"^[\w.]+\s*\(.*?\)\s*(->|--|:|=|$)|->|^\w+\s*=|^[\w.]+\s*:[:=]|^\w+\("),
    ),
    ("link", re.compile(r"https?://|www\.", re.IGNORECASE)),
    (
        "pointer",  # says where the description is, or nothing about this function
        re.compile(
            r"^\W*(see|refer|cf|same as|alias|inherit(s|ed)?|overrid(e|es|den|ing)|overloaded|like|docstring)\b"
            r"|\b(see|refer to|docs?(umentation)? (of|for|in)|base class|super ?class|parent class)\b"
            r"|placeholder|for more (details|information)",
            re.IGNORECASE,
        ),
    ),
    ("format", re.compile(r"[{}%|\\]|\$\w|::|<\w+>")),  # templates, tables, formulas
)


class Function(NamedTuple):
    """A function with its own description."""

    file: str  # below its root, with slashes
    name: str
    line: int
    query: str
    code: str

    @property
    def id(self) -> str:
        return f"{self.file}:{self.name}:{self.line}"

    @property
    def keys(self) -> tuple[str, str]:
        """Two functions that share either are copies of each other."""
        words = " ".join(re.findall(r"\w+", self.query.lower()))
        return sha(f"query {words}"), sha(f"code {''.join(_body(self.code).split())}")


class Reading(NamedTuple):
    """What a package gave: its functions in the order in which they should be taken, and rejections by reason."""

    package: str
    functions: list[Function]
    rejected: Counter[str]


def read_package(package: str, files: Sequence[tuple[Path, str]], limit: int) -> Reading:
    """Reads files, each `(path, name)`, in an order given by a hash of the name until `limit` functions are found.

    A file counts for no more than twice its even share of `limit`, so that a few long files do not stand for the package.
    """
    share = max(4, 2 * limit // max(1, len(files)))
    found: list[list[Function]] = []
    rejected: Counter[str] = Counter()
    counted = 0
    seen: set[str] = set()
    for path, name in sorted(files, key=lambda file: sha(file[1])):
        if counted >= limit:
            break
        functions, reasons = read_file(path, name)
        rejected += reasons
        unique = without_copies(functions, seen)
        rejected["copy"] += len(functions) - len(unique)
        found.append(sorted(unique, key=lambda function: sha(function.id)))
        counted += min(share, len(unique))
    return Reading(package, list(itertools.islice(deal(found), limit)), rejected)


def without_copies(functions: Sequence[Function], seen: set[str]) -> list[Function]:
    """Leaves out functions one of whose keys is in `seen`, and adds the keys of the others to it."""
    kept = []
    for function in functions:
        if seen.isdisjoint(keys := function.keys):
            seen.update(keys)
            kept.append(function)
    return kept


def deal(hands: Sequence[Sequence[Card]]) -> Iterator[Card]:
    """The first of each, then the second of each, and so on."""
    for turn in itertools.zip_longest(*hands):
        yield from (card for card in turn if card is not None)


def sha(text: str) -> str:
    """A hash that is the same in every process, for orders that follow no alphabet."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_file(path: Path, name: str) -> tuple[list[Function], Counter[str]]:
    """Functions of one file; a file that is too long or does not parse gives none and says so."""
    if path.stat().st_size > FILE_BYTES:
        return [], Counter({"file too long": 1})
    try:
        with tokenize.open(path) as file:
            return read_source(file.read(), name)
    except (SyntaxError, ValueError, RecursionError):
        return [], Counter({"file does not parse": 1})


def read_source(text: str, name: str) -> tuple[list[Function], Counter[str]]:
    """Functions of one source text, methods included, functions inside functions not."""
    if "def " not in text or not _DOCSTRING.search(text):
        return [], Counter()  # parsing takes nearly all the time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        tree = ast.parse(text)
    lines = text.split("\n")
    functions: list[Function] = []
    rejected: Counter[str] = Counter()
    for node in _definitions(tree):
        docstring = ast.get_docstring(node, clean=False)
        if docstring is None:
            continue
        query = first_paragraph(docstring)
        reason = _reject_node(node) or reject_query(query)
        if reason:
            rejected[reason] += 1
        else:
            functions.append(Function(name, node.name, node.lineno, query, _code(node, lines)))
    return functions, rejected


def first_paragraph(docstring: str) -> str:
    """The text before the first blank line or section heading, on one line, reST roles resolved."""
    lines = inspect.cleandoc(docstring).split("\n")
    paragraph = itertools.takewhile(lambda line: line.strip() and not _SECTION.match(line), lines)
    text = _ROLE.sub(r"\1", " ".join(paragraph))
    return " ".join(text.replace("``", "`").split())


def reject_query(query: str) -> str | None:
    """Why this is no description of a function in prose, or None."""
    words = query.split()
    if len(words) not in WORDS:
        return "query too short" if len(words) < WORDS.start else "query too long"
    for reason, pattern in _REJECTED:
        if pattern.search(query):
            return reason
    if query.endswith((":", ",")):
        return "cut off"
    letters = sum(
        character.isascii() and (character.isalpha() or character == " ") for character in query
    )
    plain = sum(bool(re.fullmatch(r"\W?[A-Za-z]+(['-][A-Za-z]+)?\W*", word)) for word in words)
    return None if letters >= 0.85 * len(query) and plain >= 0.7 * len(words) else "not prose"


def _definitions(node: ast.AST) -> Iterator[Definition]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield child
        elif isinstance(child, ast.ClassDef | ast.If | ast.Try | ast.With):
            yield from _definitions(child)


def _reject_node(node: Definition) -> str | None:
    docstring, *body = node.body
    if node.name.startswith("test"):
        return "test"
    statements = (
        part for statement in body for part in ast.walk(statement) if isinstance(part, ast.stmt)
    )
    if len(list(itertools.islice(statements, STATEMENTS))) < STATEMENTS:
        return "code too short"
    if (node.end_lineno or 0) - body[0].lineno >= CODE_LINES:
        return "code too long"
    return "docstring shares a line with code" if body[0].lineno == docstring.end_lineno else None


def _code(node: Definition, lines: Sequence[str]) -> str:
    """Decorators, signature and body at the left margin, comments included, docstring not."""
    docstring = node.body[0]
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    body = itertools.dropwhile(
        lambda line: not line.strip(), lines[docstring.end_lineno : node.end_lineno]
    )
    indent = lines[start - 1][: node.col_offset]
    return "\n".join(
        line.removeprefix(indent).rstrip()
        for line in (*lines[start - 1 : docstring.lineno - 1], *body)
    )


def _body(code: str) -> str:
    """The code after the line that ends the signature, so that a renamed copy is recognised."""
    return re.split(r":\s*(?:#.*)?\n", code, maxsplit=1)[-1]
