import os

import pytest

from e5jax.config import Config, Lora, Training
from e5jax.errors import ConfigError
from e5jax.snapshot import to_json
from e5jax.workdir import Workdir, changes, claim, complete, read_config, record, write_text


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fill(folder, **files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


def test_artifact_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "new" / "export"
    with complete(target) as folder:
        fill(folder, a="1")
        assert not target.exists()
        assert folder.name == target.name
    assert content(tmp_path) == {"new/export/a": "1"}
    assert os.listdir(target.parent) == ["export"]


def test_new_folder_replaces_the_old_one_whole(tmp_path):
    fill(tmp_path / "export", old="1", both="1")
    with complete(tmp_path / "export") as folder:
        fill(folder, both="2")
        assert content(tmp_path / "export") == {"old": "1", "both": "1"}
    assert content(tmp_path) == {"export/both": "2"}
    assert os.listdir(tmp_path) == ["export"]


@pytest.mark.parametrize("name", ["replaced", "old", "export.replaced"])
def test_a_folder_of_any_name_can_be_replaced(name, tmp_path):
    fill(tmp_path / name, a="1")
    with complete(tmp_path / name) as folder:
        fill(folder, a="2")
    assert content(tmp_path) == {f"{name}/a": "2"}


def write_half_and_fail(path, error):
    with complete(path) as folder:
        fill(folder, a="2")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_artifact_and_nothing_else(error, tmp_path):
    fill(tmp_path / "export", a="1")
    with pytest.raises(error):
        write_half_and_fail(tmp_path / "export", error)
    assert content(tmp_path) == {"export/a": "1"}
    assert os.listdir(tmp_path) == ["export"]


def test_failure_of_the_first_writer_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="half"):
        write_half_and_fail(tmp_path / "export", ValueError("half"))
    assert not list(tmp_path.iterdir())


def test_a_writer_that_writes_nothing_does_not_cost_the_old_folder(tmp_path):
    fill(tmp_path / "export", a="1")
    with pytest.raises(AssertionError, match="the writer made something"), complete(tmp_path / "export"):
        pass
    assert content(tmp_path) == {"export/a": "1"}


def test_text_is_written_as_utf8_and_replaces_a_file(tmp_path):
    write_text(tmp_path / "a.json", "first")
    write_text(tmp_path / "a.json", "Größe 😀\n")
    assert (tmp_path / "a.json").read_bytes() == "Größe 😀\n".encode()
    assert os.listdir(tmp_path) == ["a.json"]


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
    assert [line["changed"] for line in changes(Workdir(tmp_path))] == [["data.x: a\u2028b\nc \x85 -> é"]] * 2


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


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json") as caught:
        read_config(Workdir(tmp_path))
    assert f"--workdir={tmp_path}" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", '{"model_type": "mistral"}'])
def test_a_config_of_something_else_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="config"):
        claim(Workdir(tmp_path), Config())


def test_no_two_artifacts_share_a_place(tmp_path):
    names = [name for name, value in vars(Workdir).items() if isinstance(value, property)]
    runs = (Workdir(tmp_path), Workdir(tmp_path).pretrain)
    places = [getattr(run, name) for run in runs for name in names]
    places = [place.root if isinstance(place, Workdir) else place for place in places]
    assert len({str(place) for place in places}) == len(places) == 2 * len(names)
