"""`--check` compiles each shipped config for the machine that its docstring names, before anything is paid for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.config.test_load import ROOT
from tests.launch.runs import ASKED

# Config, script, machine; and what its docstring says of that.
MACHINES = {
    "quickstart": ("train", "--topology=cpu:2", "2 CPU cores"),
    "passkey": ("train", "--topology=cpu:2", "2 CPU cores"),
    "e5_mistral_7b": (
        "train",
        "--accelerator=v5litepod-16 --target=tpu-vm --zone=us-west4-a",
        "TPU v5e 4x4",
    ),
    **dict.fromkeys(
        [
            "e5_mistral_public",
            "e5_mistral_synthetic",
            "e5_mistral_synthetic_msmarco",
            "gte_stage2",
            "qwen3_style",
        ],
        ("train", "--accelerator=v5litepod-16 --target=tpu-vm --zone=us-west4-a", "TPU v5e 4x4"),
    ),
    **dict.fromkeys(
        ["gte_stage1", "mgte_mrl", "sfr_style"],
        ("train", "--accelerator=v5litepod-64 --target=tpu-vm --zone=us-west4-a", "TPU v5e 8x8"),
    ),
    "synth_e5": ("synth", "", "507,000 examples"),
    "synth_demo": ("synth", "", "2 CPU cores"),
}
LONG = {name for name in MACHINES if not name.startswith("synth_")}
SAYS = {"train": r"of [\d.]+ GiB: fits", "synth": r"requests +prompt tokens +reply tokens"}


def checked(
    script: str, config: str, *options: str, where: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    command = [
        str(ROOT / f"launch/{script}.sh"),
        config,
        "--check",
        f"--python={sys.executable}",
        *options,
    ]
    around = {**os.environ, "XLA_FLAGS": "", "OPENAI_API_KEY": "none"}
    return subprocess.run(
        command, cwd=where, env=around, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.parametrize("name", MACHINES)
def test_a_shipped_config_passes_on_the_machine_that_it_names(name, tmp_path):
    if name in LONG and ASKED not in os.environ:
        pytest.skip(f"{ASKED} is not set")
    script, options, named = MACHINES[name]
    docstring = (ROOT / "configs" / f"{name}.py").read_text(encoding="utf-8").split('"""')[1]
    assert named in docstring
    words = options.split()
    if name == "passkey":
        command = [
            sys.executable,
            "-m",
            "examples.passkey",
            "--lengths=256",
            "--examples=50",
            f"--output={tmp_path / 'data'}",
        ]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        words.append(f"--config.tokens.tokenizer={tmp_path / 'data' / 'tokenizer.json'}")
    done = checked(script, f"configs/{name}.py", *words)
    assert done.returncode == 0, done.stderr
    assert re.search(SAYS[script], done.stdout), done.stdout


def test_every_config_is_checked():
    assert {path.stem for path in (ROOT / "configs").glob("*.py")} == set(MACHINES)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--topology=cpu:2", "--config.optim.learning_rat=1"], "did you mean learning_rate?"),
        (["--topology=v5e:3x3"], "--topology=v5e:3x3"),
        (["--platform=tpu"], "needs a machine; add --topology=v5e:4x4"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(options, said):
    done = checked("train", "configs/quickstart.py", *options)
    assert done.returncode == 3
    assert said in done.stderr
