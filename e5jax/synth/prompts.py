"""Prompts: templates from `prompts/`, and how what others wrote is put into them.

A template's `{name}` is replaced once; what was put in is not looked at again. A text that a model or a user wrote comes as a
JSON string: it cannot end its quotation, hold a control character or a model's special token, or be longer than its limit.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

# What tokenizers and chat templates treat as more than text.
SPECIAL = re.compile(
    r"</?s>|<(?:unk|pad|bos|eos|mask)>|<\|[^|<>\s]{1,40}\|>|<(?:start|end)_of_(?:turn|image)>|\[/?INST\]|<</?SYS>>"
    r"|\[(?:CLS|SEP|MASK|PAD|UNK)\]|<extra_id_\d+>|<｜[^｜<>]{1,40}｜>|<\|?/?(?:im_start|im_end|endoftext)\|?>",
    re.IGNORECASE,
)
# Control characters, line separators, marks that turn the direction of writing, halves of characters. Joiners are text.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
TASK, DOCUMENT, HINT = 400, 6_000, 200  # characters


@cache
def templates(name: str) -> tuple[str, ...]:
    """The templates of `prompts/NAME.txt`, which `---` lines part."""
    text = files("e5jax.synth").joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")
    return tuple(part.strip() for part in text.split("\n---\n"))


@cache
def examples(family: str) -> tuple[str, ...]:
    """Tasks that show a model what a task looks like."""
    return tuple(templates(f"{family}.examples")[0].splitlines())


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its placeholders replaced, in one pass."""
    return PLACEHOLDER.sub(lambda found: values[found[1]], template)


def quoted(text: str, limit: int) -> str:
    """A text of unknown origin as a JSON string."""
    return json.dumps(harmless(text, limit), ensure_ascii=False)


def quoted_list(texts: Sequence[str], limit: int) -> str:
    """Several of them, a line each."""
    return "\n".join(f"- {quoted(text, limit)}" for text in texts)


def harmless(text: str, limit: int) -> str:
    """Without control characters, without special tokens, not longer than `limit` characters."""
    kept = _UNSEEN.sub(" ", text[: 2 * limit])
    return SPECIAL.sub(lambda found: f"{found[0][0]} {found[0][1:]}", kept)[:limit].strip()
