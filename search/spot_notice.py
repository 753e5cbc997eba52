"""What a node that is about to be taken away does about it: every trial on it saves at once, in the middle of an epoch.

    python -m search.spot_notice          watches until the machine goes, one per node: see cluster.yaml
    python -m search.spot_notice --now    tells them now: before a pod ends or a machine is switched off

AWS tells a spot instance two minutes ahead, and often earlier that this has become likely, through the metadata service
of the instance: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html and
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html.

It is small, and stays so by needing Python's own library only: `python -P search/spot_notice.py` spares the memory of
all that comes with the package.
"""

import argparse
import contextlib
import fcntl
import os
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

SERVICE = "http://169.254.169.254"
TOKEN, ACTION, REBALANCE = (
    "/latest/api/token",
    "/latest/meta-data/spot/instance-action",
    "/latest/meta-data/events/recommendations/rebalance",
)
TOKEN_S, TIMEOUT_S, EVERY_S = 21_600, 2.0, 5.0
ATTEMPTS = 3
"""Without an answer, after which there is no such service here: the machine is not one of AWS."""
AGAIN_S = 30.0
"""Trials go on until the machine is gone, and save again after each of these."""
TITLES = b"ray::CrossValidation", b"ray::FoldProcess"
"""How Ray names the process of a trial, and that of a fold, whose trial may be on another node: by their classes."""


def trial_processes(proc: Path = Path("/proc")) -> list[int]:
    """The process numbers of all trials of ours and of their folds on this machine, whichever search they are of."""
    found = []
    for folder in proc.iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):  # it has just ended
                if folder.stat().st_uid == os.getuid() and (folder / "cmdline").read_bytes().startswith(TITLES):
                    found.append(int(folder.name))
    return sorted(found)


def tell_trials(processes: list[int]) -> int:
    """SIGTERM to each; see `CrossValidation` and `FoldProcess`. Returns how many there were still."""
    told = 0
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
            told += 1
    return told


class Metadata:
    """The metadata service of an instance, version 2: every question carries a token."""

    def __init__(self, service: str = SERVICE):
        self._service, self._token = service, ""
        # Straight to the machine's own address, whatever proxy the environment names.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def get(self, path: str) -> str | None:
        """What stands there, or None where there is nothing. Raises `OSError` where nobody answers."""
        if not self._token:
            self._token = self._ask(TOKEN, {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}, "PUT")
        try:
            return self._ask(path, {"X-aws-ec2-metadata-token": self._token})
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            self._token = ""  # it has expired, or the service has been started again
            raise

    def _ask(self, path: str, headers: dict[str, str], method: str = "GET") -> str:
        question = urllib.request.Request(f"{self._service}{path}", headers=headers, method=method)
        with self._open(question, timeout=TIMEOUT_S) as answer:
            return str(answer.read().decode())


def watch(
    metadata: Metadata,
    tell: Callable[[], int],
    say: Callable[[str], None],
    every_s: float = EVERY_S,
    again_s: float = AGAIN_S,
) -> None:
    """Tell trials once when it has become likely that the instance is taken, and again and again once that is certain.
    Ends with the machine only, or where there is no such service."""
    answered, failed, likely, last_told = False, 0, "", -float("inf")
    while True:
        try:
            action, now_likely = metadata.get(ACTION), metadata.get(REBALANCE) or ""
            answered, failed = True, 0
        except OSError as error:
            failed += 1
            if failed >= ATTEMPTS and not answered:
                say(f"no metadata service ({error}): nothing tells here that the machine is to be taken away")
                return
        else:
            if action is not None and time.monotonic() - last_told >= again_s:
                last_told = time.monotonic()
                say(f"{action.strip()}: told {tell()} trials to save")
            elif action is None and now_likely and now_likely != likely:
                likely = now_likely
                say(f"rebalance {likely.strip()}: told {tell()} trials to save")
        time.sleep(every_s)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m search.spot_notice", description="Trials on this node save when it is about to be taken away."
    )
    parser.add_argument("--now", action="store_true", help="tell them now, and end")
    parser.add_argument(
        "--service", default=SERVICE, metavar="URL", help="where the metadata are (default: %(default)s)"
    )
    parser.add_argument("--every", type=float, default=EVERY_S, metavar="SECONDS", help="(default: %(default)s)")
    given = parser.parse_args(arguments)
    if given.every <= 0:
        parser.error(f"--every {given.every:g}: give seconds, more than none")
    if not given.service.startswith(("http://", "https://")):
        parser.error(f"--service {given.service}: give a URL as {SERVICE}")
    if given.now:
        _say(f"told {tell_trials(trial_processes())} trials to save")
        return 0
    with (Path(tempfile.gettempdir()) / f"spot-notice-{os.getuid()}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, however it ends
        except BlockingIOError:
            _say("another watches already")
            return 0
        watch(Metadata(given.service), lambda: tell_trials(trial_processes()), _say, given.every)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
