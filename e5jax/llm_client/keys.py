"""Secrets of an endpoint: read from the environment or a file, sent in headers, and taken out of everything that comes back."""

import ipaddress
import math
import os
import re
import stat
from pathlib import Path
from urllib.parse import quote, urlsplit

from e5jax.errors import ConfigError
from e5jax.llm_client.config import Endpoint

OPENAI = "https://api.openai.com/v1"
MASK = "***"
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e]*)")


class Secrets:
    """The key and the headers. Nothing that prints this object shows them."""

    def __init__(self, endpoint: Endpoint):
        self.key = _key(endpoint)
        self.headers = dict(_header(line) for line in endpoint.headers)
        hidden = [
            self.key,
            *(self.headers[_name(line)] for line in endpoint.headers if "$" in line),
        ]
        self._hidden = sorted(
            {form for text in hidden if len(text) >= 8 for form in (text, quote(text, safe=""))},
            key=len,
        )

    def redact(self, text: str) -> str:
        """The text with every secret masked."""
        for secret in reversed(self._hidden):
            text = text.replace(secret, MASK)
        return text


def base_url(endpoint: Endpoint) -> str:
    """Where requests go. Raises ConfigError for an address that must not get them."""
    address = endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(f"endpoint.base_url={address!r}: must begin with https:// or http://")
    if url.username or url.password:
        raise ConfigError(
            "endpoint.base_url holds a user name or password; set endpoint.key_variable or headers instead"
        )
    if _is(url.hostname, "is_link_local"):
        raise ConfigError(
            f"endpoint.base_url={address!r}: is a link-local address, where machines keep their metadata"
        )
    local = url.hostname == "localhost" or _is(url.hostname, "is_loopback")
    if url.scheme == "http" and not local and not endpoint.plain_http:
        raise ConfigError(
            f"endpoint.base_url={address!r}: texts and key would go unencrypted; use https, or set plain_http=True"
        )
    return address


def _is(host: str, what: str) -> bool:
    try:
        return getattr(ipaddress.ip_address(host), what)
    except ValueError:
        return False


def _key(endpoint: Endpoint) -> str:
    if endpoint.key_file:
        path = Path(endpoint.key_file)
        where = f"endpoint.key_file={endpoint.key_file!r}"
        if not path.is_file():
            raise ConfigError(f"{where}: there is no such file")
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(f"{where}: others may read it; chmod 600 {endpoint.key_file}")
        key = path.read_text(encoding="utf-8", errors="replace").strip()
    else:
        where = f"the environment variable {endpoint.key_variable}"
        key = os.environ.get(endpoint.key_variable, "").strip()
    if not key and base_url(endpoint) != OPENAI:
        return "none"  # endpoints of one's own mostly want none
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{where} {'holds no key' if not key else 'holds something that is no key'}"
        )
    return key


def _header(line: str) -> tuple[str, str]:
    if not (found := _HEADER.fullmatch(line)):
        raise ConfigError("endpoint.headers: one of them is not `Name: value` in ASCII")
    name, value = found.groups()
    if value.startswith("$"):
        if value[1:] not in os.environ:
            raise ConfigError(
                f"endpoint.headers: {name}: the environment variable {value[1:]} is not set"
            )
        value = os.environ[value[1:]]
    return name, value


def _name(line: str) -> str:
    return line.partition(":")[0]


def check_endpoint(endpoint: Endpoint) -> None:
    """Models and numbers. Raises ConfigError."""
    names = [model.name for model in endpoint.models]
    if not names or "" in names or len(set(names)) < len(names):
        raise ConfigError(f"endpoint.models: {names}: name at least one model, each once")
    for model in endpoint.models:
        if not 0 < model.share < math.inf:
            raise ConfigError(
                f"endpoint.models: {model.name!r} has share={model.share}; it must be above 0 and finite"
            )
        prices = (model.prompt_price or 0.0, model.completion_price or 0.0, model.batch_price)
        if not all(0 <= price < math.inf for price in prices):
            raise ConfigError(
                f"endpoint.models: {model.name!r} has a price that is below 0 or not finite: {prices}"
            )
    for name, value, least in [
        ("concurrency", endpoint.concurrency, 1),
        ("tries", endpoint.tries, 1),
        ("reply_bytes", endpoint.reply_bytes, 1),
        ("requests_a_minute", endpoint.requests_a_minute, 0),
        ("tokens_a_minute", endpoint.tokens_a_minute, 0),
        ("timeout", endpoint.timeout, 0.001),
        ("patience", endpoint.patience, 0),
        ("poll", endpoint.poll, 0.001),
    ]:
        if not least <= value < math.inf:
            raise ConfigError(f"endpoint.{name}={value}: must be at least {least} and finite")
