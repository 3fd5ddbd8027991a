"""What several processes are refused, and what becomes of the parts of a config; without starting any."""

# SPDX-License-Identifier: Apache-2.0

import json
import socket

import pytest
import torch
from blocks import Blocks, config
from torch import nn
from torch.utils.data import DataLoader

from segfast.distributed import launch
from segfast.distributed.wire import Wire, exit_status
from segfast.errors import ConfigError, DataError, OutputError
from segfast.models import BaseModel
from segfast.runner import Runner, build, environment, wrap


def several(monkeypatch, *modules):
    for module in modules:
        monkeypatch.setattr(module, "world", lambda: (0, 2))


class OwnStep(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        return inputs

    def train_step(self, data, optim_wrapper):
        return {}


def test_a_train_step_of_its_own_is_not_passed_over(monkeypatch):
    assert isinstance(wrap.wrap_model(OwnStep(), None, None, False), OwnStep)
    several(monkeypatch, wrap)
    with pytest.raises(ConfigError, match=r"^model: OwnStep has a train_step of its own"):
        wrap.wrap_model(OwnStep(), None, None, False)


def test_plain_samplers_are_refused(monkeypatch):
    loader = DataLoader(Blocks(), batch_size=2)
    build._check_shares(loader, "train_dataloader")
    several(monkeypatch, build)
    with pytest.raises(
        ConfigError, match=r"^train_dataloader.sampler: SequentialSampler gives every"
    ):
        build._check_shares(loader, "train_dataloader")


def test_sync_batch_norm_in_one_process_is_batch_norm():
    model = nn.Sequential(nn.Linear(3, 4), nn.SyncBatchNorm(4), nn.Sequential(nn.SyncBatchNorm(4)))
    weight = model[1].weight
    model[1].bias.requires_grad_(False)
    plain = wrap.without_sync_bn(model)
    assert not wrap._has_sync_bn(plain)
    assert plain[1].weight is weight
    assert not plain[1].bias.requires_grad
    x = torch.randn(5, 3)
    truth = nn.Sequential(plain[0], nn.BatchNorm1d(4), nn.BatchNorm1d(4))
    torch.testing.assert_close(plain(x), truth(x))
    assert list(plain.state_dict()) == list(model.state_dict())


def test_sync_batch_norm_on_cpus_is_said_to_be_none(monkeypatch, tmp_path):
    model = Runner.from_cfg(config(tmp_path)).model
    several(monkeypatch, wrap)
    monkeypatch.setattr(wrap.MODELS, "build", lambda cfg, path, module: module)
    model.net[0] = nn.SyncBatchNorm(3)
    with pytest.warns(UserWarning, match="SyncBN exists on CUDA only"):
        wrapped = wrap.wrap_model(model, None, None, False)
    assert not wrap._has_sync_bn(wrapped)


@pytest.mark.parametrize(("dist_cfg", "text"), [
    ({"backnd": "nccl"}, r"^env_cfg.dist_cfg.backnd: unknown, there are backend, timeout"),
    ({"backend": "tcp"}, r"^env_cfg.dist_cfg.backend: expected one of gloo, nccl, got 'tcp'"),
    ({"timeout": "long"}, r"^env_cfg.dist_cfg.timeout: expected seconds, got 'long'"),
])  # fmt: skip
def test_dist_cfg_is_checked_in_one_process_too(tmp_path, dist_cfg, text):
    with pytest.raises(ConfigError, match=text):
        Runner.from_cfg(config(tmp_path, env_cfg={"dist_cfg": dist_cfg}))


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert (
        environment.choose_device(None)
        == environment.choose_device("cuda")
        == torch.device("cuda", 1)
    )
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"^device: process 2 .* there are 2 \(hint: torchrun"):
        environment.choose_device(None)


@pytest.mark.parametrize(("launcher", "given"), [
    ("slurm", {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"}),
    ("mpi", {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}),
])  # fmt: skip
def test_other_launchers(monkeypatch, launcher, given):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    launch._take_variables(launcher)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    assert [launch.os.environ[name] for name in names] == ["3", "4", "1"]


def test_a_failure_has_the_status_of_the_command_line():
    errors = [
        DataError("x"),
        OutputError("f", "full"),
        KeyboardInterrupt(),
        SystemExit(143),
        OSError(),
    ]
    assert [exit_status(error) for error in errors] == [2, 1, 130, 143, 1]


def test_strangers_do_not_disturb_the_wire():
    store = torch.distributed.HashStore()
    wire = Wire(store, 0, 1, "127.0.0.1")
    port, token = json.loads(store.get("segfast/hub"))
    for text in (
        b"GET / HTTP/1.1\n\n", b'{"token": "guess", "rank": 1}\n', b"[]\n", b"\xff\n", b"{}\n",
        '{"token": "é"}\n'.encode(), b'{"token": null}\n', b"[" * 3000 + b"\n", b"x" * 5000,
    ):  # fmt: skip
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.settimeout(10)
            stranger.sendall(text)
            assert stranger.recv(10) == b""
    assert len(token) == 32
    with socket.create_connection(("127.0.0.1", port)) as silent:
        silent.settimeout(10)
        wire.leave()
        assert not wire._listener.is_alive()  # it was heard
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.recv(10)  # and strangers are told nothing


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", socket.gethostname()])
def test_the_wire_is_reached_under_any_name_of_the_machine(host):
    try:
        socket.getaddrinfo(host, 0)
        if host == "::1":
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip(f"this machine has no {host}")
    wire = Wire(torch.distributed.HashStore(), 0, 1, host)
    wire.leave()
    assert not wire._listener.is_alive()


def test_steps_of_one_slurm_job_do_not_meet(monkeypatch):
    ports = set()
    for step in range(4):
        given = {
            "PROCID": "0",
            "NTASKS": "2",
            "LOCALID": "0",
            "JOB_ID": "123456",
            "STEP_ID": str(step),
        }
        for name, value in given.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        launch._take_variables("slurm")
        ports.add(int(launch.os.environ["MASTER_PORT"]))
    assert len(ports) == 4
    assert all(20000 <= port < 32768 for port in ports)
