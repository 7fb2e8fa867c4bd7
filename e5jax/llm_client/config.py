"""Configuration of an endpoint, its models and its budget."""

from dataclasses import dataclass
from typing import Literal

Format = Literal["auto", "schema", "json", "text"]
Api = Literal["chat", "batch"]


@dataclass(slots=True)
class LanguageModel:
    """A model that answers requests, and what it costs. Prices are money per million tokens, in any one currency."""

    name: str = ""
    share: float = 1.0  # of the requests, relative to the other models'
    prompt_price: float | None = None
    completion_price: float | None = None
    batch_price: float = (
        0.5  # of a token asked for through the Batch API, relative to the prices above
    )


@dataclass(slots=True)
class Endpoint:
    """Where requests go: OpenAI, Azure, or anything that speaks its protocol. Keys come from the environment or a file only."""

    models: tuple[LanguageModel, ...] = ()
    base_url: str = ""  # empty: OPENAI_BASE_URL, or OpenAI's own
    azure_version: str = ""  # the `api-version`: `base_url` is then the address of an Azure resource, models its deployments
    key_variable: str = "OPENAI_API_KEY"  # the environment variable that holds the key
    key_file: str = ""  # instead of the variable
    headers: tuple[
        str, ...
    ] = ()  # `Name: value`, where `$NAME` as value stands for that environment variable
    plain_http: bool = False  # True: keys and texts may go unencrypted to another machine
    proxies: bool = False  # True: HTTPS_PROXY and the like are heeded
    api: Api = "chat"  # batch: the Batch API, cheaper and within a day; `concurrency` is then the most requests of a batch
    poll: float = 30.0  # seconds between two looks at a batch
    format: Format = (
        "auto"  # how a reply is held to its schema; auto: the best that the endpoint takes
    )
    concurrency: int = 64  # requests on their way at any time
    requests_a_minute: int = 0  # 0: what the endpoint allows is found out
    tokens_a_minute: int = 0
    timeout: float = (
        300.0  # seconds for one request, from the first byte sent to the last one received
    )
    tries: int = 8  # of one request, before it is given up for this run
    patience: float = 600.0  # seconds without any answer, after which the run stops
    reply_bytes: int = 1_000_000  # the longest body that is read


@dataclass(slots=True)
class Budget:
    """What a run may use up, earlier runs of the same journal included. It is overrun by no more than what is on its way."""

    money: float | None = None
    tokens: int | None = None
    requests: int | None = None
