import json
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from e5jax.datasets.public_sets import SETS, Set, in_mix, named
from e5jax.datasets.readers.formats import FORMATS
from e5jax.errors import ConfigError

WIKIPEDIA = "Given a question, retrieve Wikipedia passages that answer the question"
CHINESE = "Given a Chinese search query, retrieve web passages that answer the question"
# arXiv 2401.00368, appendix A and Table 14.
PAPER = {
    "eli5": (
        0.1,
        "Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum",
    ),
    "hotpotqa": (
        1,
        "Given a multi-hop question, retrieve documents that can help answer the question",
    ),
    "fever": (1, "Given a claim, retrieve documents that support or refute the claim"),
    "miracl": (1, WIKIPEDIA),
    "msmarco_passage": (
        0.5,
        "Given a web search query, retrieve relevant passages that answer the query",
    ),
    "msmarco_document": (
        0.2,
        "Given a web search query, retrieve relevant documents that answer the query",
    ),
    "nq": (1, WIKIPEDIA),
    "nli": (
        1,
        "Given a premise, retrieve a hypothesis that is entailed by the premise",
        "Retrieve semantically similar text",
    ),
    "squad": (1, "Retrieve Wikipedia passages that answer the question"),
    "triviaqa": (1, "Retrieve Wikipedia passages that answer the question"),
    "quora": (
        0.1,
        "Given a question, retrieve questions that are semantically equivalent to the given question",
        "Find questions that have the same meaning as the input question",
    ),
    "mrtydi": (1, WIKIPEDIA),
    "dureader": (1, CHINESE),
    "t2ranking": (0.5, CHINESE),
    "synthetic": (1,),
}


def test_ratios_and_instructions_are_those_of_the_paper():
    assert {chosen.name: (chosen.ratio, *chosen.instructions) for chosen in SETS} == PAPER


def test_an_unknown_set_is_answered_with_the_known_ones():
    with pytest.raises(
        ConfigError, match="set 'hotpot': there is none; use one of eli5, hotpotqa, fever, miracl,"
    ):
        named("hotpot")


def test_a_file_of_the_mix_belongs_to_one_set():
    files = [chosen.mix for chosen in SETS if chosen.mix]
    assert len(set(files)) == len(files) == 14
    assert in_mix("allnli") == (named("nli"), named("nli").instructions)
    assert in_mix("quora_duplicates_split2") == (named("quora"), named("quora").instructions[1:])
    assert [in_mix(name) for name in ("nli", "nq_split1", "allnli_split3", "")] == [None] * 4


def test_the_table_costs_no_import_of_what_reads_files():
    code = "import json, sys, e5jax.datasets.public_sets; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    )
    assert not {"tensorflow_datasets", "datasets", "pyarrow", "jax", "grain"} & set(loaded)


# --- docs/data.md --------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs/data.md"


def row(chosen: Set) -> str:
    sources = [f"[{PurePosixPath(file).name}]({file})" for file in chosen.files]
    hub = [
        f"hub: `{repository}`"
        for repository in dict.fromkeys(repository for repository, _ in chosen.hub)
    ]
    formats = ", ".join(f"`{name}`" for name in chosen.formats)
    cells = [
        f"`{chosen.name}`",
        chosen.title,
        f"{chosen.ratio:g}",
        " · ".join(chosen.instructions) or "each record's own",
        "; ".join((*sources, *hub)) or "`e5jax synth`",
        formats,
        chosen.licence,
    ]
    return f"| {' | '.join(cells)} |"


def test_the_documentation_has_the_table():
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    start = lines.index("| name | set | ratio | instruction | download | formats | licence |")
    assert lines[start + 2 : start + 2 + len(SETS)] == [row(chosen) for chosen in SETS]


def test_the_documentation_names_every_format():
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in FORMATS if f"| `{name}` | " not in text] == []
