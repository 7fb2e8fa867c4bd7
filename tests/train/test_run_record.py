"""What a run is, and what it may become: nothing that is complete may be recorded as something else."""

import json
import subprocess
import sys

import pytest

from e5jax.checkpoint import manifest
from e5jax.config import Config, Harvest, Lora, Training
from e5jax.config.load import load
from e5jax.config.serialize import to_json
from e5jax.errors import CONFIG, ConfigError
from e5jax.train.run_record import changes, claim, compare, record, trained_steps
from e5jax.workdir.directory import Workdir, read_config


def config(steps=6, **fields):
    made = Config(**fields)
    made.optim.steps = steps
    return made


def checkpoint(workdir, step):
    place = workdir.checkpoints / str(step)
    place.mkdir(parents=True)
    manifest.write(place, {})


def complete_run(root, **fields):
    workdir = Workdir(root)
    claim(workdir, config(**fields))
    checkpoint(workdir, 6)
    workdir.trained.write_text(json.dumps({"steps": 6}))
    workdir.export.mkdir()
    (workdir.export / "model.safetensors").write_text("6")
    workdir.results.write_text("6")
    return workdir


def content(workdir):
    return {
        path.relative_to(workdir.root).as_posix(): path.read_bytes()
        for path in workdir.root.rglob("*")
        if path.is_file()
    }


def test_claim_writes_the_configuration_and_the_same_one_resumes(tmp_path):
    workdir, config = Workdir(tmp_path / "runs/a"), Config(seed=3, lora=Lora())
    claim(workdir, config)
    claim(workdir, config)
    assert read_config(workdir) == config
    assert workdir.config.read_text() == to_json(config)


def test_claim_refuses_another_configuration_and_names_field_old_and_new(tmp_path):
    workdir = Workdir(tmp_path)
    claim(workdir, Config(seed=3))
    other = Config(seed=4)
    other.optim.steps = 10
    with pytest.raises(ConfigError) as caught:
        claim(workdir, other)
    for words in (
        f"--workdir={tmp_path}",
        "config.seed: 3 -> 4",
        "config.optim.steps: 879 -> 10",
        "another --workdir",
        "--allow-change",
    ):
        assert words in str(caught.value)
    assert read_config(workdir) == Config(seed=3)


def test_another_configuration_that_is_allowed_is_recorded(tmp_path):
    workdir = Workdir(tmp_path)
    claim(workdir, Config(pretrain=Training()))
    assert changes(workdir) == []
    for seed in (4, 5):
        other = Config(seed=seed, pretrain=Training())
        other.pretrain.optim.steps = seed
        claim(workdir, other, allow=True)
        assert read_config(workdir) == other
        claim(workdir, other)
    noted = [line["changed"] for line in changes(workdir)]
    assert noted[0] == ["config.pretrain.optim.steps: 879 -> 4", "config.seed: 0 -> 4"]
    assert noted[1] == ["config.pretrain.optim.steps: 4 -> 5", "config.seed: 4 -> 5"]
    assert [line["changed"] for line in changes(workdir.pretrain)] == [lines[:1] for lines in noted]


def test_whatever_changed_is_one_line(tmp_path):
    for _ in range(2):
        record(Workdir(tmp_path), ["data.x: a\u2028b\nc \x85 -> é"])
    assert [line["changed"] for line in changes(Workdir(tmp_path))] == [
        ["data.x: a\u2028b\nc \x85 -> é"]
    ] * 2


def test_a_profile_can_be_asked_for_when_a_run_is_resumed(tmp_path):
    workdir = Workdir(tmp_path)
    first, second = (Config(pretrain=Training()) for _ in range(2))
    claim(workdir, first)
    assert second.pretrain is not None
    second.profile.steps = second.pretrain.profile.first = 3
    claim(workdir, second)
    second.seed = 1
    with pytest.raises(ConfigError, match="seed: 0 -> 1"):
        claim(workdir, second)


def test_more_steps_extend_a_complete_run_and_what_it_came_to_is_kept(tmp_path):
    workdir = complete_run(tmp_path)
    assert compare(workdir, config(12), allow=True) == ["config.optim.steps: 6 -> 12"]
    assert trained_steps(workdir) == 6
    claim(workdir, config(12), allow=True)
    assert read_config(workdir) == config(12)
    assert [line["changed"] for line in changes(workdir)] == [["config.optim.steps: 6 -> 12"]]
    assert sorted(path.name for path in (workdir.earlier / "6").iterdir()) == [
        "export",
        "results.json",
        "train.json",
    ]
    assert trained_steps(workdir) == 0
    assert not workdir.export.exists()
    assert not workdir.results.exists()
    claim(workdir, config(12))
    assert len(changes(workdir)) == 1


def test_an_extension_that_was_killed_half_way_is_finished_by_the_next_start(tmp_path):
    workdir = complete_run(tmp_path)
    workdir.config.write_text(to_json(config(12)))
    claim(workdir, config(12))
    assert (workdir.earlier / "6" / "train.json").exists()
    assert not workdir.export.exists()


def other(name, value, steps=6):
    made = config(steps, eval=Config().eval)
    *path, last = name.split(".")
    part = made
    for each in path:
        part = getattr(part, each)
    setattr(part, last, value)
    return made


CHANGES = [
    ("optim.learning_rate", 0.5, 6),
    ("optim.learning_rate", 0.5, 12),
    ("optim.steps", 3, 3),
    ("batch.queries", 64, 6),
    ("seed", 9, 6),
    ("lora", Lora(rank=2), 6),
    ("loss.temperature", 0.5, 6),
    ("data.files", ("other.jsonl",), 6),
    ("checkpoint.folder", "elsewhere", 6),
    ("export.task", "another", 6),
    ("eval.tasks", ("another",), 6),
    ("eval.tasks", ("another",), 12),
]


@pytest.mark.parametrize(("name", "value", "steps"), CHANGES)
def test_any_other_change_of_a_complete_run_is_refused_and_changes_no_file(
    name, value, steps, tmp_path
):
    workdir = complete_run(tmp_path)
    before = content(workdir)
    for act in (compare, claim):
        with pytest.raises(
            ConfigError,
            match=f"is complete and would not be redone.*config.{name.replace('.', '.')}",
        ) as caught:
            act(workdir, other(name, value, steps), allow=True)
        assert "only a larger config.optim.steps" in str(caught.value)
    assert content(workdir) == before


def test_what_comes_after_a_complete_training_may_change_until_it_is_done(tmp_path):
    workdir = complete_run(tmp_path)
    workdir.results.unlink()
    claim(workdir, other("eval.tasks", ("another",)), allow=True)
    assert read_config(workdir).eval.tasks == ("another",)


def test_a_training_whose_last_checkpoint_is_there_is_complete_without_its_note(tmp_path):
    workdir = Workdir(tmp_path)
    claim(workdir, config())
    checkpoint(workdir, 6)
    with pytest.raises(ConfigError, match=r"the training of .* is complete"):
        claim(workdir, other("optim.learning_rate", 0.5), allow=True)


def test_fewer_steps_than_were_taken_are_refused(tmp_path):
    workdir = Workdir(tmp_path)
    claim(workdir, config(9))
    checkpoint(workdir, 6)
    with pytest.raises(
        ConfigError, match=r"config\.optim\.steps=5: the run has a checkpoint of step 6"
    ):
        claim(workdir, config(5), allow=True)
    claim(workdir, config(7), allow=True)
    assert read_config(workdir) == config(7)


@pytest.mark.parametrize(
    ("artifact", "name", "value"),
    [
        ("data", "data.harvest", Harvest(task="another")),
        ("data", "tokens.vocabulary", 99),
        ("pretrain/export", "pretrain", Training(seed=4)),
    ],
)
def test_a_complete_stage_is_not_recorded_as_another(artifact, name, value, tmp_path):
    workdir = Workdir(tmp_path)
    claim(workdir, config(pretrain=Training()))
    (tmp_path / artifact).mkdir(parents=True)
    changed = config(pretrain=Training())
    if "." in name:
        setattr(getattr(changed, name.split(".")[0]), name.split(".")[1], value)
    else:
        setattr(changed, name, value)
    before = content(workdir)
    with pytest.raises(ConfigError, match="is complete and would not be redone"):
        claim(workdir, changed, allow=True)
    assert content(workdir) == before


@pytest.mark.parametrize(
    "name",
    [
        "metrics.jsonl",
        "checkpoints",
        "export",
        "results.json",
        "report.html",
        "train.json",
        "run.json",
    ],
)
def test_a_directory_that_holds_what_a_run_would_replace_and_no_run_is_refused(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / "notes").touch()
    with pytest.raises(
        ConfigError, match=rf"has {name}, but no config\.json of a run; choose another --workdir"
    ):
        claim(Workdir(tmp_path), Config())
    (tmp_path / name).rmdir()
    claim(Workdir(tmp_path), Config())


@pytest.mark.parametrize("text", ["{", "[]", '{"steps": "six"}', "{}"])
def test_a_damaged_note_of_a_training_is_named(text, tmp_path):
    Workdir(tmp_path).trained.write_text(text)
    with pytest.raises(ConfigError, match=r"train\.json"):
        trained_steps(Workdir(tmp_path))


def test_a_damaged_line_of_the_changes_is_named(tmp_path):
    record(Workdir(tmp_path), ["a"])
    with Workdir(tmp_path).changes.open("a") as file:
        file.write('{"when": ')
    with pytest.raises(ConfigError, match=r"changes\.jsonl: is damaged"):
        changes(Workdir(tmp_path))


def test_a_start_that_fails_changes_no_file(tmp_path):
    workdir = Workdir(tmp_path / "run")
    (tmp_path / "base").mkdir()
    (tmp_path / "c.py").write_text(
        f"from e5jax.config import *\nbase, files = {str(tmp_path / 'base')!r}, ('x.jsonl',)\n"
        "def get_config():\n    return Config(stages=('train',), data=Data(files=files), model=Model(base=base))\n"
    )
    claim(workdir, load(str(tmp_path / "c.py"), []))
    before = content(workdir)
    command = [
        sys.executable,
        "-m",
        "e5jax",
        "run",
        f"--config={tmp_path / 'c.py'}",
        f"--workdir={workdir.root}",
    ]
    done = subprocess.run(
        [*command, "--allow-change", "--config.seed=3"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == CONFIG, done.stderr
    assert "base/config.json: no such file" in done.stderr
    assert content(workdir) == before
