"""A reply of a language model, read with distrust: text flows in, the strings that were asked for flow out."""

import re
from typing import Any

from e5jax.errors import RecordError
from e5jax.jsonl import parse_object
from e5jax.llm_client.request import Reply
from e5jax.synth.prompts import PLACEHOLDER, SPECIAL
from e5jax.synth.reasons import UnfitError

BYTES = 200_000  # of a reply
CHARACTERS = 20_000  # of one text
FINISHES = {"length": "truncated", "content_filter": "filtered", "refusal": "refused"}
_FENCED = re.compile(r"```(?:json|JSON)?[ \t]*\r?\n(.*?)\r?\n?```", re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd\ufffe\uffff]")
# How models decline, beginnings of a text, folded. Other languages are left to the identifier and the judge.
_DECLINED = re.compile(
    r"\W*(?:i['’]?m sorry|i am sorry|sorry,|i apologi[sz]e|i can(?:['’]t|not|\snot)|i (?:am|['’]m) (?:not able|unable)|i won['’]t"
    r"|unfortunately, i|as an? (?:ai|language model|large language)|lo siento, (?:pero )?no puedo|je suis désolée?, mais"
    r"|je ne peux pas (?:vous|répondre)|es tut mir leid, aber|ich kann (?:diese|dabei)|mi dispiace, ma|извините, но|抱歉|对不起"
    r"|申し訳(?:ありません|ございません))",
    re.IGNORECASE,
)


def read(reply: Reply) -> dict[str, Any]:
    """The JSON object of a finished reply. Raises UnfitError."""
    if reply.finish != "stop":
        raise UnfitError(
            FINISHES.get(reply.finish, "unfinished"), f"finished with {reply.finish[:40]!r}"
        )
    if len(reply.text.encode("utf-8", "surrogatepass")) > BYTES:
        raise UnfitError("too-large", f"more than {BYTES:,} bytes")
    text = reply.text.removeprefix("\ufeff").strip()
    if not text:
        raise UnfitError("empty", "no text")
    if fenced := _FENCED.fullmatch(text):
        text = fenced[1].strip()
    try:
        return parse_object(text)
    except RecordError as error:
        if _DECLINED.match(text):
            raise UnfitError("refused", "says that it cannot") from error
        raise UnfitError("malformed", str(error)[:200]) from error


def strings(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    """Just these strings, none of them strange. Raises UnfitError."""
    if set(values) != set(names):
        missing, extra = sorted(set(names) - set(values)), sorted(set(values) - set(names))
        raise UnfitError(
            "schema", f"missing {missing}, not asked for {[name[:40] for name in extra[:5]]}"
        )
    return {name: text_of(values[name], name) for name in names}


def text_of(value: object, name: str) -> str:
    """A text without what no text should hold. Raises UnfitError."""
    if not isinstance(value, str):
        raise UnfitError("schema", f"{name} is no string")
    text = value.strip()
    if not text:
        raise UnfitError("empty", f"{name} is blank")
    if len(text) > CHARACTERS:
        raise UnfitError("too-large", f"{name} has more than {CHARACTERS:,} characters")
    if found := _UNPRINTABLE.search(text):
        raise UnfitError("characters", f"{name} holds U+{ord(found[0]):04X}")
    if found := SPECIAL.search(text):
        raise UnfitError("special-token", f"{name} holds {found[0]!r}")
    if _DECLINED.match(text):
        raise UnfitError("refused", f"{name} says that it cannot")
    if text == name or PLACEHOLDER.fullmatch(text) or text in ("...", "…", "string"):
        raise UnfitError("placeholder", f"{name} is {text!r}")
    return text
