"""A node that is about to be taken away, on a metadata service of the tests' own."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import search.spot_notice as spot_notice
from search.spot_notice import ACTION, REBALANCE, Metadata, trial_processes, watch

WAITS = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('up', flush=True); \
time.sleep(60)"


class Enough(Exception):
    """Ends a watch that would not end."""


@contextlib.contextmanager
def metadata_service(answers: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """A metadata service of version 2 on loopback: its address, and the tokens that it has given out. Each is good for
    three questions."""
    tokens: list[str] = []
    questions: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            assert int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) > 0
            tokens.append(f"token{len(tokens)}")
            self.answer(200, tokens[-1])

        def do_GET(self) -> None:
            token = self.headers.get("X-aws-ec2-metadata-token", "")
            questions[token] = questions.get(token, 0) + 1
            if token not in tokens or questions[token] > 3:
                self.answer(401, "")
            elif self.path in answers:
                self.answer(200, answers[self.path])
            else:
                self.answer(404, "")

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", tokens
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def process_named(title: str) -> Iterator[subprocess.Popen]:
    """A process of that name, which ends with status 7 on SIGTERM."""
    process = subprocess.Popen(
        [title, "-c", WAITS], executable=sys.executable, stdout=subprocess.PIPE, env={**os.environ, "PYTHONHOME": ""}
    )
    try:
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_trials_are_told_once_when_it_is_likely_and_again_and_again_when_it_is_certain():
    answers: dict[str, str] = {}
    said: list[str] = []
    polls = 0

    def tell() -> int:
        if "terminate" in answers.get(ACTION, "") and sum("terminate" in line for line in said) == 2:
            raise Enough
        return 3

    class Scripted(Metadata):
        def get(self, path: str) -> str | None:
            nonlocal polls
            polls += path == ACTION
            if polls == 3:
                answers[REBALANCE] = '{"noticeTime": "2026-02-03T04:05:06Z"}'
            if polls == 9:
                answers[ACTION] = '{"action": "terminate", "time": "2026-02-03T04:07:06Z"}'
            return super().get(path)

    with metadata_service(answers) as (service, tokens), pytest.raises(Enough):
        watch(Scripted(service), tell, said.append, every_s=0.001, again_s=0.02)
    assert [line.partition(" ")[0] for line in said] == ["rebalance", '{"action":', '{"action":']
    assert all(line.endswith("told 3 trials to save") for line in said)
    assert polls > 10
    assert len(tokens) > 3, "a token that has expired is replaced"


def test_a_machine_without_such_a_service_is_not_watched(tmp_path):
    """As cluster.yaml starts it: by its file, with nothing of the package but that."""
    done = subprocess.run(
        [sys.executable, "-P", spot_notice.__file__, "--service", "http://127.0.0.1:9", "--every", "0.001"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "no metadata service" in done.stdout


@pytest.mark.parametrize("title", ["ray::CrossValidation.train", "ray::FoldProcess.advance"])
def test_the_program_tells_trials_and_nobody_else(title, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with process_named(title) as trial, process_named("ray::IDLE") as idle:
        found = trial_processes()
        assert trial.pid in found
        assert idle.pid not in found
        # Other tests may be training on this machine.
        monkeypatch.setattr(spot_notice, "trial_processes", lambda: [trial.pid, 2**22 + 1])
        assert spot_notice.main(["--now"]) == 0
        assert trial.wait(timeout=20) == 7
        assert idle.poll() is None
    assert capsys.readouterr().out.endswith("told 1 trials to save\n")


def test_one_watch_per_node_is_enough(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(spot_notice, "watch", lambda *_: spot_notice.main([]))
    assert spot_notice.main([]) == 0
    assert capsys.readouterr().out.endswith("another watches already\n")


@pytest.mark.parametrize("wrong", [["--every", "0"], ["--service", "169.254.169.254"]])
def test_what_the_watch_is_given_wrong_is_said(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        spot_notice.main(wrong)
    assert ended.value.code == 2
    assert " ".join(wrong) in capsys.readouterr().err
