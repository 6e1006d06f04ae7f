"""Sinks: nothing is lost, nothing is written twice."""

import numpy as np
from tensorboardX.proto.event_pb2 import Event

from parnassus.tracking import CSVSink, Progress, TensorBoardSink, read_columns, read_rows


def test_columns_are_steps_then_sorted_names(tmp_path):
    path = tmp_path / "metrics.csv"
    sink = CSVSink(path)
    sink.log(10, {"b": 2.0, "a": 0.1})
    sink.log(20, {"b": float("nan"), "a": -np.inf})
    assert path.read_text().split() == ["steps,a,b", "10,0.1,2.0", "20,-inf,"]


def test_each_row_is_there_when_log_returns(tmp_path):
    sink = CSVSink(tmp_path / "metrics.csv")
    for i in range(3):
        sink.log(i, {"a": i / 3})
        assert read_columns(tmp_path / "metrics.csv")["a"].tolist() == [j / 3 for j in range(i + 1)]


def test_a_new_name_makes_a_new_column(tmp_path):
    path = tmp_path / "metrics.csv"
    sink = CSVSink(path)
    sink.log(10, {"b": 1.0})
    sink.log(20, {"a": 2.0})
    sink.log(30, {"c": 4.0, "b": 3.0})
    sink.close()
    assert path.read_text().split() == ["steps,a,b,c", "10,,1.0,", "20,2.0,,", "30,,3.0,4.0"]
    assert not list(tmp_path.glob("*.tmp"))


def test_resuming_drops_what_is_beyond_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.csv"
    sink = CSVSink(path)
    for steps in (10, 20, 30):
        sink.log(steps, {"a": float(steps)})
    resumed = CSVSink(path, resume_at=20)
    resumed.log(30, {"a": 31.0})
    assert read_columns(path)["steps"].tolist() == [10, 20, 30]
    assert read_columns(path)["a"].tolist() == [10, 20, 31]
    CSVSink(path)  # from the start
    assert read_rows(path) == []


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("steps,a\n10,1.5\n20,2")  # of 2.5
    assert read_rows(path) == [{"steps": 10.0, "a": 1.5}]
    CSVSink(path, resume_at=20).log(20, {"a": 2.5})
    assert path.read_text().split() == ["steps,a", "10,1.5", "20,2.5"]


def test_no_file_and_no_rows(tmp_path):
    assert read_columns(tmp_path / "metrics.csv") == {}
    (tmp_path / "empty.csv").write_text("")
    assert read_rows(tmp_path / "empty.csv") == []


def events(directory):
    """(tag, value, step) of every scalar. A record: its length (8 bytes), a checksum (4), the event, a checksum (4)."""
    found = []
    for path in sorted(directory.glob("events.out.tfevents.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            event = Event()
            event.ParseFromString(content[at + 12 : at + 12 + length])
            found += [(value.tag, value.simple_value, event.step) for value in event.summary.value]
            at += 16 + length
    return found


def test_tensorboard_has_what_is_known(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.log(10, {"loss/policy": 0.5, "episode/return": float("nan")})
    sink.log(20, {"loss/policy": 0.25, "episode/return": 7.0})
    sink.close()
    assert events(tmp_path) == [("loss/policy", 0.5, 10), ("loss/policy", 0.25, 20), ("episode/return", 7.0, 20)]


def test_without_a_terminal_the_last_line_is_said(capsys):
    bar = Progress("ppo on CartPole-v1", 2_000, start=500)
    bar.log(1_000, {"time/steps_per_second": 1234.4, "episode/return": float("nan")})
    assert capsys.readouterr().err == ""  # too soon after the beginning
    bar.log(2_000, {"time/steps_per_second": 1234.4, "episode/return": 21.0})
    bar.close()
    assert capsys.readouterr().err == "ppo on CartPole-v1: 2,000/2,000 steps  1,234/s  return 21  0 s left\n"


def test_on_a_terminal_there_is_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    bar = Progress("ppo on CartPole-v1", 2_000)
    bar.log(1_000, {"time/steps_per_second": 1234.4, "episode/return": 21.0})
    bar.close()
    said = capsys.readouterr().err
    assert "1,000/2,000 steps  1,234/s  return 21" in said and "ppo on CartPole-v1" in said
