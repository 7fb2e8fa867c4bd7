"""Exports that are damaged, hollow or misleading are caught, by the look at files, at numbers, or at what others make of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from e5jax.config import Training
from e5jax.data.tokenizer import Templates, TextTokenizer
from e5jax.errors import ConfigError
from e5jax.export import file_checks, folder, layer_subsets, settings, verify, weights
from e5jax.export.file_checks import ExportError, check_files, check_tensors
from e5jax.export.layer_subsets import Part
from e5jax.export.reference import Expected, Texts, reference
from e5jax.export.reference_libraries import Question, answer
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.export.verify import check_answer
from e5jax.model.dense import fold
from e5jax.model.spec import Spec
from tests import tiny
from tests.export import small

pytestmark = pytest.mark.filterwarnings(
    tiny.PEFT_WARNING, "ignore:Found missing adapter keys:UserWarning"
)


class Export(NamedTuple):
    """A sound folder, and what its vectors must be."""

    folder: Path
    subject: TrainedModel
    choice: Choice
    expected: Expected


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> dict[str, Export]:
    root = tmp_path_factory.mktemp("verify")
    subject = small.adapted(small.base(root / "base", small.spec()), small.spec())
    found = {}
    for kind in ("merged", "adapter"):
        choice = Choice(kind, shard_bytes=60_000)
        folder.fill(subject, root / kind, choice)
        part = Part(0, subject.made.spec, root / kind, subject.base)
        expected = (
            found["merged"].expected if found else reference(subject, part, Texts.of(subject))
        )
        found[kind] = Export(root / kind, subject, choice, expected)
    return found


# --- what is done to a folder ----------------------------------------------------------------------------------


def says(name: str, change: Callable[[dict], object]) -> Callable[[Path, Export], None]:
    def go(folder: Path, _: Export) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return go


def holds(
    name: str, change: Callable[[torch.Tensor], torch.Tensor | None]
) -> Callable[[Path, Export], None]:
    """Changes one tensor, or takes it away, wherever it is."""

    def go(folder: Path, _: Export) -> None:
        (file,) = [path for path in folder.glob("*.safetensors") if name in load_file(path)]
        tensors = load_file(file)
        changed = change(tensors.pop(name))
        save_file(
            tensors | ({} if changed is None else {name: changed.contiguous()}),
            file,
            metadata={"format": "pt"},
        )
        if changed is None and (index := folder / "model.safetensors.index.json").is_file():
            said = json.loads(index.read_text())
            del said["weight_map"][name]
            index.write_text(json.dumps(said))

    return go


def all_factors(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path, Export], None]:
    def go(folder: Path, _: Export) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        changed = {
            name: change(value) if "lora_B" in name else value for name, value in tensors.items()
        }
        save_file(changed, folder / "adapter_model.safetensors")

    return go


def tokens(change: Callable[[Tokenizer], object]) -> Callable[[Path, Export], None]:
    def go(folder: Path, _: Export) -> None:
        made = Tokenizer.from_file(str(folder / "tokenizer.json"))
        change(made)
        made.save(str(folder / "tokenizer.json"))

    return go


def template(text: str) -> Callable[[Tokenizer], object]:
    special = [(piece, number) for piece, number in (("<s>", 1), ("</s>", 2)) if piece in text]

    def go(made: Tokenizer) -> None:
        made.post_processor = TemplateProcessing(single=text, special_tokens=special)

    return go


def base_weights(folder: Path, export: Export) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "model.safetensors").write_bytes(
        (export.subject.base / "model.safetensors").read_bytes()
    )


def cut(folder: Path, _: Export) -> None:
    file = sorted(folder.glob("model-*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:-100])


def lost(folder: Path, _: Export) -> None:
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def no_pooling(folder: Path, _: Export) -> None:
    (folder / "1_Pooling/config.json").unlink()
    says("modules.json", lambda modules: modules.pop(1))(folder, _)


def stray(folder: Path, _: Export) -> None:
    save_file({"x": torch.zeros(1)}, folder / "stray.safetensors")


def pickled(folder: Path, _: Export) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"x")


def mean(config: dict) -> None:
    config |= {"pooling_mode_lasttoken": False, "pooling_mode_mean_tokens": True}


def swapped(config: dict) -> None:
    prompts = config["prompts"]
    prompts["query"], prompts["document"] = prompts["document"], prompts["query"]


Q = "layers.1.self_attn.q_proj.weight"
UP = "layers.2.mlp.up_proj.weight"
FACTOR = "base_model.model.layers.0.mlp.down_proj.lora_B.weight"
FILES, NUMBERS, VECTORS = "files", "numbers", "vectors"

UNLIKE = "gives other vectors than the checkpoint"
OTHER = "has other numbers than the checkpoint"
SAYS = "does not say what it must"
POOLING, MODULES, PROMPTS = (
    "1_Pooling/config.json",
    "modules.json",
    "config_sentence_transformers.json",
)
LIMITS, TOKENS = "sentence_bert_config.json", "tokenizer_config.json"

# What is done, and what each look that can see it says, on its own.
MERGED = {
    "a tensor is missing": (
        holds(Q, lambda _: None),
        {NUMBERS: f"{Q}: is missing", VECTORS: f"finds no {Q}, and"},
    ),
    "the base instead of the merged": (base_weights, {NUMBERS: OTHER, VECTORS: UNLIKE}),
    "a kernel is the other way round": (
        holds(Q, lambda x: x.T),
        {NUMBERS: f"{Q}: {OTHER}", VECTORS: UNLIKE},
    ),
    "one kernel is zero": (
        holds(UP, torch.zeros_like),
        {NUMBERS: f"{UP}: {OTHER}", VECTORS: UNLIKE},
    ),
    "one row is NaN": (
        holds(UP, lambda x: x.index_fill(0, torch.tensor([0]), float("nan"))),
        {NUMBERS: f"{UP}: has NaN", VECTORS: "vectors of lengths from nan"},
    ),
    "another dtype": (
        holds(UP, lambda x: x.bfloat16()),
        {NUMBERS: f"{UP}: is BF16 .* must be float32"},
    ),
    "a file is cut short": (
        cut,
        {NUMBERS: "00002-of.*not a safetensors file", VECTORS: "file not fully covered"},
    ),
    "a file is lost": (
        lost,
        {
            NUMBERS: "names files that are not there: model-00002",
            VECTORS: "No such file.*model-00002",
        },
    ),
    "another base of the rotary embedding": (
        says("config.json", lambda c: c["rope_parameters"].update(rope_theta=500.0)),
        {FILES: f"config.json: {SAYS}", VECTORS: UNLIKE},
    ),
    "that of transformers 4 alone": (
        says("config.json", lambda c: c.update(rope_theta=500.0)),
        {FILES: f"config.json: {SAYS}"},
    ),
    "another epsilon": (
        says("config.json", lambda c: c.update(rms_norm_eps=0.01)),
        {FILES: SAYS, VECTORS: UNLIKE},
    ),
    "another window": (
        says("config.json", lambda c: c.update(sliding_window=2)),
        {FILES: SAYS, VECTORS: UNLIKE},
    ),
    "fewer layers": (
        says("config.json", lambda c: c.update(num_hidden_layers=2)),
        {FILES: SAYS, VECTORS: UNLIKE},
    ),
    "another pooling": (
        says(POOLING, mean),
        {FILES: f"{POOLING}: {SAYS}", VECTORS: f"sentence-transformers {UNLIKE}"},
    ),
    "no pooling": (no_pooling, {FILES: f"{POOLING}: is missing", VECTORS: "sentence_embedding"}),
    "no normalisation": (
        says(MODULES, lambda modules: modules.pop(2)),
        {
            FILES: f"{MODULES}: {SAYS}",
            VECTORS: "vectors of lengths from .*, and they are of length 1",
        },
    ),
    "prompts swapped": (
        says(PROMPTS, swapped),
        {FILES: f"{PROMPTS}: {SAYS}", VECTORS: f"sentence-transformers {UNLIKE}"},
    ),
    "no prompts": (
        says(PROMPTS, lambda c: c.pop("prompts")),
        {FILES: SAYS, VECTORS: f"sentence-transformers {UNLIKE}"},
    ),
    "another similarity": (
        says(PROMPTS, lambda c: c.update(similarity_fn_name="dot")),
        {FILES: SAYS, VECTORS: r"similarity, limit and dimensions as \('dot', 64, None\)"},
    ),
    "a shorter limit": (
        says(LIMITS, lambda c: c.update(max_seq_length=12)),
        {
            FILES: f"{LIMITS}: {SAYS}",
            VECTORS: r"similarity, limit and dimensions as \('cosine', 12, None\)",
        },
    ),
    "fewer dimensions": (
        says(PROMPTS, lambda c: c.update(truncate_dim=8)),
        {FILES: SAYS, VECTORS: r"similarity, limit and dimensions as \('cosine', 64, 8\)"},
    ),
    "both directions": (
        says("config.json", lambda c: c.update(is_causal=False)),
        {FILES: SAYS, VECTORS: UNLIKE},
    ),
    "no EOS": (
        tokens(template("<s> $A")),
        {FILES: "tokenizer.json: is not", VECTORS: r"reads text 0 as .* trained with .* 2\]"},
    ),
    "no BOS": (
        tokens(template("$A </s>")),
        {FILES: "tokenizer.json: is not", VECTORS: r"reads text 0 as .* trained with \[1,"},
    ),
    "special tokens in a text are special": (
        says(TOKENS, lambda c: c.update(split_special_tokens=False)),
        {FILES: f"{TOKENS}: {SAYS}", VECTORS: "reads text 4 as"},
    ),
    "padding on the left": (
        says(TOKENS, lambda c: c.update(padding_side="left")),
        {FILES: f"{TOKENS}: {SAYS}", VECTORS: "the tokenizer pads on the left"},
    ),
    "a pickle": (pickled, {FILES: "pytorch_model.bin: does not belong there"}),
    "weights that no index names": (stray, {NUMBERS: "stray.safetensors: does not belong there"}),
}
ADAPTER = {
    "lora_B is zero": (all_factors(torch.zeros_like), {NUMBERS: OTHER, VECTORS: UNLIKE}),
    "lora_B is scaled": (all_factors(lambda x: 1.5 * x), {NUMBERS: OTHER, VECTORS: UNLIKE}),
    "a factor is missing": (
        holds(FACTOR, lambda _: None),
        {NUMBERS: f"{FACTOR}: is missing", VECTORS: "finds no .*|" + UNLIKE},
    ),
    "another alpha": (
        says("adapter_config.json", lambda c: c.update(lora_alpha=16)),
        {FILES: SAYS, VECTORS: UNLIKE},
    ),
    "another scale": (
        says("adapter_config.json", lambda c: c.update(use_rslora=True)),
        {FILES: SAYS, VECTORS: UNLIKE},
    ),
    "fewer targets": (
        says("adapter_config.json", lambda c: c["target_modules"].pop()),
        {FILES: SAYS, VECTORS: UNLIKE},
    ),
    "another pooling": (
        says(POOLING, mean),
        {FILES: SAYS, VECTORS: f"sentence-transformers {UNLIKE}"},
    ),
}
CASES = [("merged", *case) for case in MERGED.items()] + [
    ("adapter", *case) for case in ADAPTER.items()
]


def look_at_vectors(folder: Path, export: Export) -> None:
    for part in layer_subsets.parts(export.subject, folder, layer_subsets.BYTES):
        check_answer(small.asked(part, export.subject), export.expected, export.subject)


LOOKS: dict[str, Callable[[Path, Export], object]] = {
    FILES: lambda folder, export: check_files(folder, export.subject, export.choice),
    NUMBERS: lambda folder, export: check_tensors(folder, export.subject, export.choice),
    VECTORS: look_at_vectors,
}
# Those of transformers and safetensors come out of their process as one ExportError.
ERRORS = (ExportError, ConfigError, SafetensorError, OSError, KeyError)


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_a_sound_folder_passes_every_look(exports, kind):
    export = exports[kind]
    for go in LOOKS.values():
        go(export.folder, export)


@pytest.mark.parametrize(
    ("kind", "case"), [case[::2] for case in CASES], ids=[": ".join(case[:2]) for case in CASES]
)
def test_what_is_done_to_a_folder_is_caught_by_every_look_that_can_see_it(
    exports, tmp_path, kind, case
):
    export, (change, looks) = exports[kind], case
    damaged = small.copy(export.folder, tmp_path / "damaged")
    change(damaged, export)
    for look, words in looks.items():
        with pytest.raises(ERRORS, match=words):
            LOOKS[look](damaged, export)


# --- mistakes of the exporter itself: what is written and what is expected are wrong alike ------------------------


def no_fold(kernel: np.ndarray, *_: object) -> np.ndarray:
    return kernel


def no_eos(tokenizer: TextTokenizer) -> Tokenizer:
    made = Tokenizer.from_str(tokenizer.tokenizer.to_str())
    template("<s> $A")(made)
    return made


def wrong_modules(run: Training, spec: Spec, limit: int, templates: Templates) -> dict:
    made = MADE(run, spec, limit, templates)
    mean(made[POOLING])
    return made


def same_way(stacked: np.ndarray, layer: int) -> np.ndarray:
    return np.asarray(stacked[layer]).reshape(stacked.shape[:0:-1])


MADE = settings._modules
MISTAKES = {
    "the base is not merged with": (
        "merged",
        weights,
        "fold",
        no_fold,
        "is the base's own, as if its adapter had not been merged",
    ),
    "the scale is forgotten": (
        "merged",
        weights,
        "fold",
        lambda w, a, b, _: fold(w, a, b, 1.0),
        UNLIKE,
    ),
    "the factors are not turned": ("adapter", weights, "_factor", same_way, UNLIKE),
    "the tokenizer gives no EOS": (
        "merged",
        file_checks,
        "with_bos_and_eos",
        no_eos,
        "reads text 0 as",
    ),
    "the pooling is another": ("merged", settings, "_modules", wrong_modules, UNLIKE),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_the_exporter_is_caught_and_the_old_folder_stays(
    exports, tmp_path, monkeypatch, name
):
    kind, module, attribute, instead, words = MISTAKES[name]
    export, output = exports[kind], tmp_path / "out"
    output.mkdir()
    (output / "old").write_text("old")
    monkeypatch.setattr(module, attribute, instead)
    monkeypatch.setattr(folder, "with_bos_and_eos", file_checks.with_bos_and_eos)
    monkeypatch.setattr(verify, "ask", lambda asked: answer(Question(**asked)))
    monkeypatch.setattr(verify, "reference", lambda *_: export.expected)
    with pytest.raises(ExportError, match=words):
        folder.write(export.subject, output, export.choice)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing is left lying about
    assert [path.name for path in output.iterdir()] == ["old"]


# --- what is looked at ------------------------------------------------------------------------------------------


@pytest.fixture
def in_parts(exports, monkeypatch) -> tuple[int, list[int]]:
    """The bytes of two of three layers, and how many layers the libraries are asked about."""
    spec = exports["merged"].subject.made.spec
    layers: list[int] = []

    def ask(question: dict) -> dict:
        layers.append(
            json.loads((Path(question["base"] or question["folder"]) / "config.json").read_text())[
                "num_hidden_layers"
            ]
        )
        return answer(Question(**question))

    monkeypatch.setattr(verify, "ask", ask)
    return 4 * (spec.vocab * spec.hidden + 2 * spec.matrix_parameters // spec.layers) + 100, layers


def test_a_model_larger_than_memory_is_looked_at_in_parts_that_are_all_its_layers(
    exports, in_parts
):
    export, (most, layers) = exports["adapter"], in_parts
    said = verify.verify(export.folder, export.subject, export.choice, most)
    assert layers == [2, 1]
    assert "2 parts" in said[-1]
    assert all("least cosine 0.99999" in line or "least cosine 1.0" in line for line in said[1:-1])
    assert (
        len(said)
        == 1 + len(("sentence-transformers", "transformers", "PEFT", "left", "Embedder")) + 1
    )
    assert {path.name for path in export.folder.parent.iterdir()} == {
        "base",
        "merged",
        "adapter",
    }  # copies are gone


def test_the_last_part_is_looked_at_as_the_first(exports, in_parts, tmp_path, monkeypatch):
    export, (most, layers) = exports["merged"], in_parts
    damaged = small.copy(export.folder, tmp_path / "damaged")
    holds(UP, torch.zeros_like)(damaged, export)
    monkeypatch.setattr(verify, "check_tensors", lambda *_: 0)
    monkeypatch.setattr(verify, "check_own", lambda *_: 1.0)
    with pytest.raises(ExportError, match=UNLIKE):
        verify.verify(damaged, export.subject, export.choice, most)
    assert layers == [2, 1]


def test_without_pytorch_it_is_said_that_others_were_not_asked(exports, monkeypatch):
    export = exports["adapter"]
    monkeypatch.setattr(
        verify, "find_spec", lambda name: None if name in ("torch", "peft") else True
    )
    monkeypatch.setattr(verify, "ask", lambda _: pytest.fail("there is nobody to ask"))
    monkeypatch.setattr(verify, "reference", lambda *_: export.expected)
    said = verify.verify(export.folder, export.subject, export.choice)
    assert said[-1].startswith(
        "NOT verified in transformers, PEFT and sentence-transformers: torch, peft not installed"
    )
    assert any(line.startswith("vectors of Embedder are the checkpoint's") for line in said)


def test_a_folder_that_libraries_cannot_load_is_one_line_of_theirs(exports, tmp_path):
    export = exports["merged"]
    damaged = small.copy(export.folder, tmp_path / "damaged")
    (damaged / "config.json").write_text('{"model_type": "nothing"}')
    part = Part(0, export.subject.made.spec, damaged, export.subject.base)
    with pytest.raises(ExportError, match=r"cannot load it: ValueError: .*`nothing`") as caught:
        verify.ask(verify.question(part, export.subject, Texts.of(export.subject)))
    assert "\n" not in str(caught.value)
