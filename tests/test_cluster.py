"""A Ray cluster whose replicas are asked like those of one machine: what is told, refused and waited for."""

import re
import shutil
import socket
import tempfile
from contextlib import closing
from functools import partial
from importlib.util import find_spec

import pytest
from pydantic import ValidationError

from parityalign.config import LoadingSettings, RaySettings, RunConfig
from parityalign.core import Decoding, Request, RunFolder, UserError, WorkerEnded, WorkFailed
from parityalign.engines import cluster, on_ray
from parityalign.engines.cluster import Cluster
from parityalign.engines.replica import Batch, Ready
from parityalign.pipeline.run_models import RunModels
from working import backwards, client, dies, full_client


@pytest.fixture
def nodes(monkeypatch):
    """A cluster of nodes, each by what differs there; its client is a process that knows no Ray."""
    told, made = [], []

    def joined(*given, room=2, **settings):
        monkeypatch.setattr(cluster, "join", partial(client, given, room))
        made.append(Cluster(RaySettings(**settings), told.append))
        return made[-1], told

    yield joined
    for each in made:
        each.close()


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "10.0.0.1", ":6379", "head:port", "head:99999"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ValidationError, match="HOST:PORT"):
        RaySettings(address=address)


def test_an_address_at_which_nobody_listens_is_told_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(WorkFailed, match=f"(?s)no Ray cluster .* at {address}: .*efused.*ray.address"):
            Cluster(RaySettings(address=address), print).joined()


def test_a_cluster_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(cluster, "join", partial(client, (), 1))
    with pytest.raises(WorkFailed, match=r"no answer in 1e-05 s \(ray.timeout\)"):
        Cluster(RaySettings(timeout=1e-5), print).joined()


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_is_said_how_to_install_it():
    with pytest.raises(UserError, match=r"(?s)package ray.*pip install 'parityalign\[ray\]'"):
        Cluster(RaySettings(), print).joined()


def test_a_node_with_another_version_of_this_package_is_refused(nodes):
    found, _ = nodes(({"parityalign": "2"}, 0), ({}, 0), ({}, 0))
    replica = found.workplace(dies, 1).start(0)
    with pytest.raises(WorkFailed, match="node there has parityalign 2, and this machine 1"):
        replica.receive()


def test_nodes_that_differ_otherwise_are_told_once_and_a_lost_cluster_ends_the_replicas(nodes):
    found, told = nodes(({"torch": "3"}, 0), ({"torch": "3"}, 300), ({}, 0))
    place = found.workplace(dies, 3)
    for replica in [place.start(number) for number in range(3)]:
        with pytest.raises(WorkerEnded, match="cluster is lost.*status 3"):
            replica.receive()
    room, versions, clock = told
    assert room == "the Ray cluster has room for 2 of 3 replicas; the others wait for it"
    assert versions.startswith("the node there has torch 3 (here 2)")
    assert clock in (f"the clock of the node there is +{late} s off" for late in (299, 300))


def test_a_cluster_that_is_lost_again_and_again_stops_the_work(nodes):
    found, _ = nodes(({}, 0))
    place = found.workplace(dies, 1)
    for _ in range(2):
        with pytest.raises(WorkerEnded):
            place.start(0).receive()
    with pytest.raises(WorkFailed, match=r"(?s)lost 3 times.*Answers so far are kept"):
        place.start(0).receive()


def test_replicas_that_wait_for_room_are_ended_together(monkeypatch):
    monkeypatch.setattr(cluster, "join", partial(full_client, 3))
    found = Cluster(RaySettings(), print)
    try:
        place = found.workplace(dies, 3)
        replicas = [place.start(number) for number in range(3)]
        place.stop(replicas)
        assert all(each.over for each in replicas)
    finally:
        found.close()


@pytest.mark.parametrize(("replicas", "share"), [(None, 4), (3, 3)])
def test_replicas_on_nodes_share_what_prepared_pictures_may_take_by_as_many_as_there_are(
    nodes, tmp_path, replicas, share
):
    found, _ = nodes(room=4)
    loading = LoadingSettings(replicas=replicas)
    tasks = {"vqa": {"images": "nowhere"}}
    config = RunConfig(
        run=tmp_path / "run", teacher="embedded:teacher", student="embedded:student", tasks=tasks, ray=True
    )
    with RunFolder(config.run) as folder, closing(RunModels(config, folder, lambda _: None)) as models:
        work = models._on_node("embedded:student", loading, found)
    assert work.args[0].processes == share == found.workplace(work, replicas).places


def test_a_node_that_cannot_write_pictures_ends_the_work_with_what_was_said_until_then(tmp_path, monkeypatch):
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    (tmp_path / "a.png").write_bytes(b"a picture")
    picture = str(tmp_path / "a.png")
    ask = Batch([0], [Request(picture, "said")], None, Decoding(8))
    keeper = on_ray.Keeper(partial(backwards, tmp_path))
    try:
        said = keeper.messages()
        assert isinstance(next(said), on_ray.Arrived) and isinstance(next(said), Ready)
        keeper.put(ask, {picture: b"a picture"}, None)
        assert [each.text for each in next(said).made] == ["dias"]
        shutil.rmtree(tmp_path / "node")
        for _ in range(2):  # batches may be on their way already
            keeper.put(ask, {picture: b"a picture"}, None)
        (end,) = said
        assert re.search(r"cannot write pictures to .*: No such file.*\n.*ray.shared_files", str(end.problem))
        assert isinstance(end.problem, WorkFailed)
    finally:
        keeper.end()


def test_replicas_for_which_there_is_never_room_are_given_up(nodes):
    found, _ = nodes(room_timeout=0.1)
    replica = found.workplace(dies, 1).start(0)
    with pytest.raises(WorkFailed, match=r"no node of the Ray cluster had room .* 1 CPU"):
        found.wait_for([replica])
    replica.stop()
    with pytest.raises(UserError, match="has room for a replica of 1 CPU; it has some nodes"):
        nodes(room=0)[0].workplace(dies, None)
