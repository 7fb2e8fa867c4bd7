"""Replies are untrusted: each kind of bad one has its reason, and nothing crashes or hangs."""

import json
import os
from random import Random

import pytest

from e5jax.llm_client.request import Reply
from e5jax.synth.reasons import REASONS, UnfitError
from e5jax.synth.reply import read, strings

NAMES = ("query", "answer")
GOOD = {"query": "who built the tower", "answer": "Ada built it, with help."}
MUTANTS = int(os.environ.get("MUTANTS", "1500"))


def reply(text: str, finish: str = "stop") -> Reply:
    return Reply("x", 0, text, finish, "m", 1, 1)


def parse(text: str, finish: str = "stop") -> dict[str, str]:
    return strings(read(reply(text, finish)), NAMES)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        "\ufeff" + json.dumps(GOOD),
        f"\n  {json.dumps(GOOD, indent=2)}\n\n",
        f"```json\n{json.dumps(GOOD)}\n```",
        f"```\n{json.dumps(GOOD)}\n```\n",
        f"\ufeff```JSON\r\n{json.dumps(GOOD)}\r\n```",
    ],
)
def test_byte_order_mark_and_fences_are_tolerated(text):
    assert parse(text) == GOOD


def test_line_separators_and_joiners_inside_texts_are_text():
    odd = {"query": "a\u2028b", "answer": "نمی\u200cدانم"}
    assert parse(json.dumps(odd, ensure_ascii=False)) == odd


WRONG = {
    "length": (json.dumps(GOOD), "length", "truncated"),
    "content filter": ("", "content_filter", "filtered"),
    "refusal field": ("I can't help with that.", "refusal", "refused"),
    "tool call": ("", "tool_calls", "unfinished"),
    "nothing": ("", "empty", "unfinished"),
    "blank": (" \n", "stop", "empty"),
    "prose": ("Here you are: " + json.dumps(GOOD), "stop", "malformed"),
    "prose behind": (json.dumps(GOOD) + " Hope it helps!", "stop", "malformed"),
    "single quotes": (str(GOOD), "stop", "malformed"),
    "two objects": (json.dumps(GOOD) * 2, "stop", "malformed"),
    "cut off": (json.dumps(GOOD)[:-9], "stop", "malformed"),
    "a list": (json.dumps([GOOD]), "stop", "malformed"),
    "a string": ('"text"', "stop", "malformed"),
    "a name twice": ('{"query": "a", "query": "b", "answer": "c"}', "stop", "malformed"),
    "NaN": ('{"query": NaN, "answer": "c"}', "stop", "malformed"),
    "Infinity": ('{"query": -Infinity, "answer": "c"}', "stop", "malformed"),
    "huge number": ('{"query": ' + "9" * 5_000 + ', "answer": "c"}', "stop", "malformed"),
    "depth": ("[" * 100_000, "stop", "malformed"),
    "deep object": ('{"query": ' + "[" * 50_000 + "]" * 50_000 + "}", "stop", "malformed"),
    "refusal": ("I'm sorry, but I can't write that.", "stop", "refused"),
    "refusal in a field": (
        json.dumps({**GOOD, "answer": "As an AI language model, I cannot."}),
        "stop",
        "refused",
    ),
    "missing": (json.dumps({"query": "a"}), "stop", "schema"),
    "extra": (json.dumps({**GOOD, "note": "x"}), "stop", "schema"),
    "number": (json.dumps({**GOOD, "answer": 3}), "stop", "schema"),
    "null": (json.dumps({**GOOD, "answer": None}), "stop", "schema"),
    "nested": (json.dumps({**GOOD, "answer": {"text": "x"}}), "stop", "schema"),
    "blank field": (json.dumps({**GOOD, "answer": " \n\t"}), "stop", "empty"),
    "10 MB": (json.dumps({**GOOD, "answer": "x" * 10_000_000}), "stop", "too-large"),
    "long field": (json.dumps({**GOOD, "answer": "x" * 50_000}), "stop", "too-large"),
    "NUL": ('{"query": "a\\u0000b", "answer": "c"}', "stop", "characters"),
    "escape": ('{"query": "a\\u001b[2Jb", "answer": "c"}', "stop", "characters"),
    "surrogate": ('{"query": "a\\ud800b", "answer": "c"}', "stop", "characters"),
    "raw surrogate": ('{"query": "a\ud800b", "answer": "c"}', "stop", "characters"),
    "end of sequence": (
        json.dumps({**GOOD, "answer": "Ada built it.</s>"}),
        "stop",
        "special-token",
    ),
    "chat template": (json.dumps({**GOOD, "answer": "<|im_start|>user"}), "stop", "special-token"),
    "instruction token": (
        json.dumps({**GOOD, "answer": "[INST] hm [/INST]"}),
        "stop",
        "special-token",
    ),
    "field name": (json.dumps({**GOOD, "answer": "answer"}), "stop", "placeholder"),
    "braces": (json.dumps({**GOOD, "answer": "{task}"}), "stop", "placeholder"),
    "dots": (json.dumps({**GOOD, "answer": "..."}), "stop", "placeholder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_bad_reply_has_its_reason(name):
    text, finish, reason = WRONG[name]
    with pytest.raises(UnfitError) as caught:
        parse(text, finish)
    assert caught.value.reason == reason
    caught.value.detail.encode()


def test_mutated_replies_are_read_or_refused_with_a_documented_reason():
    """MUTANTS=10000 for the long run."""
    random = Random(5)
    seeds = [text for text, _, _ in WRONG.values() if len(text) < 1_000] + [json.dumps(GOOD)]
    odd = [
        '"',
        "\\",
        "{",
        "}",
        "[",
        "\0",
        "\ud800",
        "\u2028",
        "NaN",
        "1e999",
        "```",
        "\ufeff",
        "</s>",
        "\\u",
        "é",
        ",",
        ":",
    ]
    reasons = set[str]()
    for _ in range(MUTANTS):
        text = list(random.choice(seeds))
        for _ in range(random.randrange(1, 6)):
            at = random.randrange(len(text) + 1)
            text[at : at + random.randrange(3)] = random.choice(odd) * random.choice((1, 1, 1, 50))
        try:
            found = parse("".join(text), random.choice(("stop", "stop", "stop", "length", "none")))
        except UnfitError as unfit:
            reasons.add(unfit.reason)
        else:
            assert set(found) == set(NAMES)
            json.dumps(found, ensure_ascii=False).encode()
    assert {"malformed", "characters", "schema"} <= reasons <= set(REASONS)
