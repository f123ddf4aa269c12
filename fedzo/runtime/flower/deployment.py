"""A real deployment for trying out: a SuperLink and SuperNodes as processes on this machine.

Every process is started and stopped here, listens on 127.0.0.1, and keeps its files and its log in
one directory. With `tls`, certificates and keys are made for the trial, and only nodes whose keys
are registered may join.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import tomli_w

from fedzo.errors import ConfigError, RunError
from fedzo.runtime.flower.processes import MARK, end_watch, free_port, signal_all, start_watch
from fedzo.runtime.flower.trial_keys import make_certificates, make_node_key

START_S = 90.0
STOP_S = 10.0
NAME = "trial"
REFUSED = "Failed to activate SuperNode"


class LocalDeployment:
    """A SuperLink and `num_nodes` SuperNodes on 127.0.0.1, alive inside a `with`.

    node_config: further settings of every node, such as objective="box.py:make"; each has its
    partition-id, num-partitions and state-dir. Nothing survives this process, however it ends.
    Raises RunError when a process does not come up.
    """

    def __init__(
        self,
        directory: Path,
        *,
        num_nodes: int,
        tls: bool = False,
        node_config: Mapping[str, str] | None = None,
    ) -> None:
        if num_nodes < 1:
            raise ConfigError(f"num_nodes={num_nodes} must be at least 1")
        self.directory = directory.absolute()
        self.num_nodes = num_nodes
        self._tls = tls
        self._node_config = dict(node_config or {})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._watch: subprocess.Popen[bytes] | None = None
        self.address = ""

    def __enter__(self) -> "LocalDeployment":
        self._watch = start_watch(self.directory)
        try:
            self._start_superlink()
            for node in range(self.num_nodes):
                self._admit(node)
                self.start_node(node)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start_node(self, node: int) -> None:
        """Start a SuperNode, for the first time or again."""
        self._spawn(f"node-{node}", self._node_command(node))

    def kill_node(self, node: int) -> int:
        """Kill a SuperNode and what it has started, as a power cut would; return its pid."""
        name = f"node-{node}"
        process = self._processes.pop(name)
        signal_all(process, self._mark(name), signal.SIGKILL)
        process.wait()
        return process.pid

    def revive(self) -> list[int]:
        """Start every SuperNode again that has ended by itself, as systemd would; return them.

        After a crash that is needed more than once: a SuperLink refuses the key of a node that it
        still believes to be alive, for up to a minute. Raises RunError where that has ended itself.
        """
        link = self._processes.get("superlink")
        if link is not None and link.poll() is not None:
            raise RunError(f"the SuperLink has ended: {self.log('superlink')[-500:]}")
        ended = [
            node
            for node in range(self.num_nodes)
            if (process := self._processes.get(f"node-{node}")) and process.poll() is not None
        ]
        for node in ended:
            self._end(f"node-{node}")
            self.start_node(node)
        return ended

    def try_stranger(self) -> str:
        """Start a SuperNode whose key nobody registered; return what its log says of the refusal.

        Raises RunError when it is let in.
        """
        if not self._tls:
            raise ConfigError("without tls nodes have no keys; there are no strangers")
        node = self.num_nodes
        make_node_key(self.directory / f"node-{node}")
        self._spawn("stranger", self._node_command(node))
        try:
            self._processes["stranger"].wait(START_S)
        except subprocess.TimeoutExpired:
            raise RunError("an unregistered SuperNode was not refused") from None
        finally:
            self._end("stranger")
        lines = [line for line in self.log("stranger").splitlines() if REFUSED in line]
        if not lines:
            raise RunError(f"the stranger ended otherwise: {self.log('stranger')[-300:]}")
        return lines[-1].strip()

    def submit(self, app: Path, run_config: Mapping[str, str | int | float | bool]) -> int:
        """Start a run of the app in this directory; return the run's number."""
        file = self.directory / "run-config.toml"
        file.write_text(tomli_w.dumps(run_config))
        answer = self._flwr("run", str(app), NAME, "--format", "json", "--run-config", str(file))
        return int(answer["run-id"])

    def status(self, run_id: int) -> str:
        """Return what the SuperLink says of a run, such as "running" or "finished:completed"."""
        answer = self._flwr("list", NAME, "--run-id", str(run_id), "--format", "json")
        if not answer.get("runs"):
            raise RunError(f"the SuperLink knows no run {run_id}")
        return str(answer["runs"][0]["status"])

    def log(self, name: str) -> str:
        """Return the log of "superlink", "node-0", ..."""
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        """Stop every process that was started here.

        The SuperLink and its ServerApp go first: a run that saw its nodes vanish would write that
        down, and be resumed from there.
        """
        for name in sorted(self._processes, reverse=True):
            self._end(name)
        if self._watch is not None:
            end_watch(self._watch)
            self._watch = None

    def _start_superlink(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        security = ["--insecure"]
        if self._tls:
            make_certificates(self.directory)
            security = [
                *("--ssl-ca-certfile", str(self.directory / "ca.crt")),
                *("--ssl-certfile", str(self.directory / "server.pem")),
                *("--ssl-keyfile", str(self.directory / "server.key")),
                "--enable-supernode-auth",
            ]
        command = [_program("flower-superlink"), *security]
        command += ["--disable-runtime-dependency-installation", "--host", "127.0.0.1"]
        self._spawn("superlink", [*command, "--port", str(port)])
        home = self.directory / "flwr"
        home.mkdir(exist_ok=True)
        trust = f'root-certificates = "{self.directory / "ca.crt"}"' if self._tls else ""
        section = f'[superlink.{NAME}]\naddress = "{self.address}"\n'
        (home / "config.toml").write_text(section + (trust or "insecure = true") + "\n")
        self._await_port("superlink", port)

    def _admit(self, node: int) -> None:
        """Make a node's key and register it, where nodes have keys."""
        if self._tls:
            public = make_node_key(self.directory / f"node-{node}")
            self._flwr("supernode", "register", str(public), NAME, "--format", "json")

    def _node_command(self, node: int) -> list[str]:
        config: dict[str, str | int] = {
            "partition-id": node,
            "num-partitions": self.num_nodes,
            "state-dir": str(self.directory / "states"),
            **self._node_config,
        }
        security = ["--insecure"]
        if self._tls:
            security = [
                *("--root-certificates", str(self.directory / "ca.crt")),
                *("--auth-supernode-private-key", str(self.directory / f"node-{node}")),
            ]
        pairs = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
        return [
            *(_program("flower-supernode"), *security),
            *("--superlink", self.address, "--port", str(free_port()), "--node-config", pairs),
        ]

    def _spawn(self, name: str, command: Sequence[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self._environment(), MARK: self._mark(name)},
                start_new_session=True,
            )

    def _mark(self, name: str) -> str:
        """Return what marks a process and its descendants, whoever becomes their parent."""
        return f"{self.directory}:{name}"

    def _end(self, name: str) -> None:
        """Ask a process and what it has started to end, and make them."""
        process = self._processes.pop(name)
        signal_all(process, self._mark(name), signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        signal_all(process, self._mark(name), signal.SIGKILL)
        process.wait()

    def _environment(self) -> dict[str, str]:
        own = {
            "FLWR_HOME": str(self.directory / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
            "OMP_NUM_THREADS": "1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "PYTHONUNBUFFERED": "1",
        }
        return {**os.environ, **own}

    def _await_port(self, name: str, port: int) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self._processes[name].poll() is not None:
                break
            with socket.socket() as probe:
                probe.settimeout(1.0)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        raise RunError(f"the {name} did not come up: {self.log(name)[-500:]}")

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        """Call the flwr command and return the JSON that it prints."""
        try:
            done = subprocess.run(
                [_program("flwr"), *arguments],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=START_S,
            )
        except subprocess.TimeoutExpired as error:
            raise RunError(f"flwr {arguments[0]} did not answer within {START_S:g} s") from error
        try:
            answer: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError:
            answer = {}
        if done.returncode or not answer or answer.get("success") is False:
            said = (done.stdout + done.stderr).strip()[-500:]
            raise RunError(f"flwr {' '.join(arguments[:2])} failed: {said}")
        return answer


def _program(name: str) -> str:
    """Return the path of a command that flwr installs beside this Python."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise ConfigError(f"{path} is missing: install flwr into this environment")
    return str(path)
