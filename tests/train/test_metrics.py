import importlib
import json
import struct
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from e5jax.config import Log
from e5jax.errors import ConfigError
from e5jax.train.metrics import LINES, MetricLog

PLAIN = Log(tensorboard=False)


def scalars(step: int, run: int = 0) -> dict[str, float]:
    """Values that tell step and run apart, all of them exact in float32."""
    return {
        "train/loss": step + run / 4,
        "train/accuracy": 1 / (1 << step),
        "train/pairs_per_second": 2.0 * step,
    }


def record(path, config=PLAIN, *, start=0, steps=4, stop=None, run=0, writes=True):
    with MetricLog(path, config, name="train", start=start, steps=steps, writes=writes) as log:
        for step in range(start + 1, (stop or steps) + 1):
            log.write(step, scalars(step, run))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(folder):
    """Every TensorBoard event in the folder, the files in the order they were made (TFRecord: length, CRC, bytes, CRC)."""
    for file in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length


def test_every_step_is_one_json_object_with_its_number(tmp_path):
    record(tmp_path / "run/metrics.jsonl", steps=5)
    assert lines(tmp_path / "run/metrics.jsonl") == [
        {"step": step, **scalars(step)} for step in range(1, 6)
    ]


def test_a_step_can_be_read_as_soon_as_it_is_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricLog(path, PLAIN, name="train", start=0, steps=4, writes=True) as log:
        log.write(1, scalars(1))
        assert lines(path) == [{"step": 1, **scalars(1)}]


def test_resuming_drops_the_lines_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    record(path, stop=4)
    record(path, start=2, run=1)
    wanted = [scalars(1), scalars(2), scalars(3, 1), scalars(4, 1)]
    assert lines(path) == [{"step": step, **values} for step, values in enumerate(wanted, 1)]


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_resuming_drops_a_torn_last_line(cut, tmp_path):
    path = tmp_path / "metrics.jsonl"
    record(path, stop=3)
    path.write_bytes(path.read_bytes()[:-cut])
    record(path, start=2, run=1)
    assert lines(path) == [
        {"step": 1, **scalars(1)},
        {"step": 2, **scalars(2)},
        *({"step": s, **scalars(s, 1)} for s in (3, 4)),
    ]


@pytest.mark.parametrize(
    "damage", [b'{"step": 2, "tra', b"\xff\xfe", b"{}", b"[1]", b'{"step": "two"}']
)
def test_resuming_leaves_a_damaged_line_out_and_says_which(damage, tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    record(path, stop=3)
    before = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([before[0], damage, *before[2:]]))
    record(path, start=3, run=1)
    assert [line["step"] for line in lines(path)] == [1, 3, 4]
    assert f"{path}:2: damaged, left out" in capsys.readouterr().out


def test_a_killed_resume_leaves_all_metrics(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    record(path, stop=3)
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        record(path, start=2, run=1)
    assert path.read_bytes() == before


def test_starting_anew_drops_the_metrics_of_a_run_without_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    record(path, stop=3)
    record(path, run=1)
    assert [line["train/loss"] for line in lines(path)] == [1.25, 2.25, 3.25, 4.25]


def test_tensorboard_holds_the_same_values(tmp_path):
    record(tmp_path / "metrics.jsonl", Log())
    found = {
        (e.step, v.tag): v.simple_value
        for e in events(tmp_path / "tensorboard")
        for v in e.summary.value
    }
    written = lines(tmp_path / "metrics.jsonl")
    wanted = {
        (line["step"], name): value
        for line in written
        for name, value in line.items()
        if name != "step"
    }
    assert found == wanted
    assert len(found) == 4 * len(scalars(1))


def test_tensorboard_purges_the_steps_that_are_run_again(tmp_path):
    record(tmp_path / "metrics.jsonl", Log())
    record(tmp_path / "metrics.jsonl", Log(), start=2, run=1)
    marks = [event.step for event in events(tmp_path / "tensorboard") if event.session_log.status]
    assert marks[-1] == 3


def test_without_tensorboard_only_the_lines_are_written(tmp_path):
    record(tmp_path / "metrics.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_process_that_does_not_write_leaves_files_and_terminal_alone(tmp_path, capsys):
    record(tmp_path / "run/metrics.jsonl", Log(wandb_project="p"), writes=False)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


def test_wandb_that_is_not_installed_is_a_config_error_before_anything_is_written(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError) as caught:
        record(tmp_path / "run/metrics.jsonl", Log(wandb_project="mine"))
    for words in ("config.log.wandb_project='mine'", "pip install wandb"):
        assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_wandb_gets_the_same_values_when_asked_for(tmp_path, monkeypatch):
    calls = []

    class Wandb:
        @staticmethod
        def init(**settings):
            calls.append(settings)
            return Wandb

        @staticmethod
        def log(values, step):
            calls.append((step, values))

        @staticmethod
        def finish():
            calls.append("finish")

    monkeypatch.setattr(importlib, "import_module", lambda name: {"wandb": Wandb}[name])
    record(tmp_path / "metrics.jsonl", Log(tensorboard=False, wandb_project="mine"), steps=2)
    assert calls == [
        {"project": "mine", "name": "train"},
        (1, scalars(1)),
        (2, scalars(2)),
        "finish",
    ]


def test_output_that_is_no_terminal_gets_plain_lines(tmp_path, capsys):
    record(tmp_path / "metrics.jsonl", steps=4)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "\r" not in printed.err
    assert (
        printed.err.splitlines()[-1] == "train: step 4/4  loss 4.0000  accuracy 0.062  8.0 pairs/s"
    )
    assert len(printed.err.splitlines()) == 4


@pytest.mark.parametrize("steps", [20, 45, 1_000])
def test_a_long_run_has_few_lines_and_always_the_last(steps, tmp_path, capsys):
    with MetricLog(
        tmp_path / "metrics.jsonl", PLAIN, name="train", start=0, steps=steps, writes=True
    ) as log:
        for step in range(1, steps + 1):
            log.write(step, scalars(1))
    printed = capsys.readouterr().err.splitlines()
    assert LINES <= len(printed) <= 1.2 * LINES
    assert f"step {steps}/{steps} " in printed[-1]


def test_a_terminal_gets_a_bar_and_no_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    record(tmp_path / "metrics.jsonl", steps=4, start=1)
    printed = capsys.readouterr().err
    assert "train: step" not in printed
    assert "4/4" in printed
    assert "loss 4.0000" in printed


def test_files_are_closed_when_the_run_fails(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl", Log(), name="train", start=0, steps=4, writes=True)

    def fail():
        with log:
            log.write(1, scalars(1))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    with pytest.raises(ValueError, match="closed"):
        log.write(2, scalars(2))
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [1]
    assert {event.step for event in events(tmp_path / "tensorboard") if event.summary.value} == {1}
