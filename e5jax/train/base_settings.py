"""Whether training can go on from a folder: its positions, and what sentence-transformers files say of it.

Training knows tokens, one pooling and unit vectors. What else a folder has would be lost, so it is refused; what the run's
configuration sets differently is said.
"""

import typing
from pathlib import Path

from e5jax.config import Pooling, Training
from e5jax.data.tokenizer import Templates
from e5jax.errors import ConfigError
from e5jax.inference.folder_settings import Settings, read_settings
from e5jax.model.families import read_positions
from e5jax.model.folder import MODULES, file_of
from e5jax.model.spec import Spec


def check_positions(folder: Path, run: Training, at: str = "config") -> None:
    """Texts are no longer than the base has positions. With a rotary base of its own a run may make them longer."""
    positions = read_positions(folder)
    if run.tokens.limit > positions and run.model.theta is None:
        raise ConfigError(
            f"{at}.tokens.limit={run.tokens.limit}: the base has {positions} positions (max_position_embeddings in its "
            f"config.json); set at most {positions}, or {at}.model.theta as well to extend them"
        )


def start_settings(folder: Path) -> Settings | None:
    """What sentence-transformers files of the base say; None where there are none. Raises ConfigError for what would be lost."""
    if not file_of(folder, MODULES).is_file():
        return None
    settings = read_settings(folder)
    at = f"config.model.base={folder}"
    if settings.inner:
        kinds = ", ".join(f"{module.kind} ({module.folder})" for module in settings.inner)
        raise ConfigError(
            f"{at}: has {kinds} behind its pooling, which training cannot carry; "
            f"to train the decoder alone, use a copy without {MODULES}"
        )
    if settings.pooling not in typing.get_args(Pooling):
        raise ConfigError(
            f"{at}: pools by {settings.pooling}, and training knows {', '.join(typing.get_args(Pooling))}; "
            f"to train with one of these, use a copy without {MODULES}"
        )
    return settings


def with_ends(spec: Spec, settings: Settings, folder: Path) -> Spec:
    """The shape with the BOS and EOS of the folder's tokenizer. Raises ConfigError where a text has others around it, or none."""
    frame = settings.frame
    assert frame is not None, "a folder with modules.json has one"
    bos, eos = (
        frame.begin if spec.bos is None else (spec.bos,),
        frame.end if spec.eos is None else (spec.eos,),
    )
    if (frame.begin, frame.end) != (bos, eos) or len(bos) != 1 or len(eos) != 1:
        raise ConfigError(
            f"config.model.base={folder}: its tokenizer puts ids {list(frame.begin)} before and {list(frame.end)} behind a text, "
            f"and training puts BOS ({spec.bos}) and EOS ({spec.eos}) there; to train so, use a copy without {MODULES}"
        )
    return spec._replace(bos=bos[0], eos=eos[0])


def differences(settings: Settings, run: Training) -> list[str]:
    """What the run sets differently from its base, a line each."""
    own, prompts = Templates(run.tokens.query, run.tokens.document), settings.prompts
    query = own.prefix(run.export.task)
    pairs = [
        ("pooling", settings.pooling, run.model.pooling, "config.model.pooling"),
        ("similarity", settings.similarity, "cosine", ""),
        ("unit length", settings.normalises, True, ""),
        ("prompts are pooled", settings.include_prompt, True, ""),
        (
            "dimensions",
            settings.dimensions,
            run.export.dimensions or None,
            "config.export.dimensions",
        ),
        (
            "prompt of queries",
            prompts.get("query", ""),
            query,
            "config.export.task, config.tokens.query",
        ),
        (
            "prompt of documents",
            prompts.get("document", ""),
            own.prefix(None),
            "config.tokens.document",
        ),
    ]
    return [
        f"{name}: {base!r} in the base, {here!r} in this run{f' ({field})' if field else ''}"
        for name, base, here, field in pairs
        if base != here
    ]
