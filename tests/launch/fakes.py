"""Programs of clouds that are not here: they note how they were called, and answer as a script says.

What `ssh` and `gcloud … ssh` are to run elsewhere is run by a real shell here, in a home of its own.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TOOLS = (
    "gcloud",
    "kubectl",
    "xpk",
    "sky",
    "ssh",
    "sbatch",
    "squeue",
    "scontrol",
    "scancel",
    "mpirun",
    "srun",
    "docker",
)

PROGRAM = """#!{python} -IS
import json, os, subprocess, sys
folder, name, argv = {folder!r}, os.path.basename(sys.argv[0]), sys.argv[1:]
text = "" if sys.stdin.isatty() else sys.stdin.buffer.read().decode(errors="replace")
with open(folder + "/calls.jsonl", "a") as file:
    file.write(json.dumps([[name, *argv], text]) + "\\n")
code, out, err = 0, "", ""
try:
    with open(folder + "/script.json") as file:
        script = json.load(file)
except FileNotFoundError:
    script = []
for number, (words, *reply, once) in enumerate(script):
    if all(word in " ".join([name, *argv]) for word in words.split()):
        code, out, err = reply
        if once:
            with open(folder + "/script.json", "w") as file:
                json.dump(script[:number] + script[number + 1 :], file)
        break
else:
    remote = argv[-1] if name == "ssh" else next((word[10:] for word in argv if word.startswith("--command=")), None)
    if name == "sbatch":
        remote = text
    if remote is not None and os.path.exists(folder + "/run"):
        done = subprocess.run(["sh", "-c", remote], cwd=folder + "/home", input="", text=True, capture_output=True)
        code, out, err = done.returncode, done.stdout, done.stderr
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


class Reply(NamedTuple):
    """What a call that has all of these words is answered; `once`, or whenever."""

    words: str
    code: int = 0
    out: str = ""
    err: str = ""
    once: bool = False


class Fakes:
    """Makes the programs, in a folder that is to be PATH."""

    def __init__(self, folder: Path, tools: Sequence[str] = TOOLS):
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir(parents=True)
        program = PROGRAM.format(python=os.path.realpath(sys.executable), folder=str(folder))
        for name in tools:
            (folder / name).write_text(program)
            (folder / name).chmod(0o755)
        for name in ("git", "tar", "sh", "bash", "mkdir", "cat", "mv", "rmdir", "test"):
            (folder / name).symlink_to(
                next(
                    path for path in (Path("/usr/bin") / name, Path("/bin") / name) if path.exists()
                )
            )

    def answer(self, *replies: Reply) -> None:
        """From now on."""
        (self.folder / "script.json").write_text(json.dumps(replies))

    def run_remotes(self) -> None:
        """From now on what is sent elsewhere is run here."""
        (self.folder / "run").touch()

    @property
    def calls(self) -> list[tuple[list[str], str]]:
        """Arguments and stdin of each call."""
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(argv, text) for argv, text in map(json.loads, lines)]
