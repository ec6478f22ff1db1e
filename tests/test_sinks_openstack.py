"""Pushing to Nova and Placement: the real servers of `openstack_servers`, and every refusal they know."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from libmh.errors import Conflict, InvalidArguments, NotFound, Unavailable
from mh_conductor.sinks import service
from mh_conductor.sinks.state import OWNER_KEY, UUID_KEY
from mh_conductor.tables import LEASES
from openstack_servers import BARE_METAL, UNPROVIDED, Answer, OpenStack, cloud
from processes import agent, mhctl
from sink_stage import SINK, Stage, lines, settings_of, stage

__all__ = ["cloud"]  # the servers are conftest's, one for all modules
SECONDS = 60.0
GONE: Answer = (503, b'{"error": {"message": "the server is away"}}')


@pytest.fixture
def there(cloud: OpenStack, tmp_path: Path) -> Iterator[Stage]:
    """A conductor that knows three of the cloud's hosts, and has that cloud for a sink."""
    with stage(tmp_path, **settings_of(cloud.nova.port, cloud.placement.port)) as made:
        for number in (1, 2, 3):
            made.host(number)
        yield made


def test_aggregates_metadata_zones_and_traits_come_to_be_on_both_sides(
    there: Stage, cloud: OpenStack
) -> None:
    there.host(1, "CUSTOM_MH_FAST", "HW_CPU_X86_AVX2", sequence=2)
    there.aggregate("ssd", "node1.example.org", "node2.example.org", ssd="true", availability_zone="az1")
    cloud.set_traits("node1", "COMPUTE_NODE", "OWNER_NOVA", "CUSTOM_HAND")
    made = there.plan()
    assert [step.action for step in made.steps] == [
        "create-trait",
        "create",
        "add-host",
        "add-host",
        "set-traits",
    ]
    assert made.conflicts == []
    assert cloud.aggregates() == {}, "nothing is done yet"
    result = there.sinks.apply(SINK, made.id)
    assert (result.done, result.failed, result.drift) == (5, [], [])
    found = cloud.aggregates()["ssd"]
    assert sorted(found["hosts"]) == ["node1", "node2"]
    assert found["availability_zone"] == "az1"
    own = found["metadata"]
    assert (own["ssd"], own[OWNER_KEY], bool(own[UUID_KEY])) == ("true", "matahari", True)
    assert cloud.traits("node1") == {"COMPUTE_NODE", "OWNER_NOVA", "CUSTOM_HAND", "CUSTOM_MH_FAST"}
    assert cloud.mirrored("node1") == cloud.mirrored("node2") == {found["uuid"]}
    assert cloud.mirrored("node3") == set()
    (told,) = there.sinks.list_sinks()
    assert (told.name, told.type, told.last_error) == (SINK, "openstack", None)
    assert told.applied


def test_a_second_plan_is_empty_and_writes_nothing(there: Stage, cloud: OpenStack) -> None:
    there.host(2, "CUSTOM_MH_FAST", sequence=2)
    there.aggregate("a", "node1.example.org", x="1")
    there.push()
    cloud.nova.seen.clear()
    cloud.placement.seen.clear()
    made = there.plan()
    assert (made.steps, made.conflicts) == ([], [])
    assert there.sinks.apply(SINK, made.id).done == 0
    assert cloud.nova.writes() == cloud.placement.writes() == []


def test_what_somebody_changes_by_hand_is_drift_and_is_mended(there: Stage, cloud: OpenStack) -> None:
    there.host(1, "CUSTOM_MH_FAST", sequence=2)
    there.aggregate("a", "node1.example.org", x="1")
    there.push()
    number = cloud.aggregates()["a"]["id"]
    cloud.act(number, "add_host", {"host": "node3"})
    cloud.act(number, "remove_host", {"host": "node1"})
    cloud.act(number, "set_metadata", {"metadata": {"x": "2", "hand": "1"}})
    cloud.set_traits("node1", "COMPUTE_NODE")
    assert there.drift() == [
        "set-metadata a x=1",
        "add-host a node1",
        "set-traits node1.example.org +CUSTOM_MH_FAST",
        "remove-host a node3",
        "unset-metadata a -hand",
    ]
    assert there.push().drift == []
    found = cloud.aggregates()["a"]
    assert (found["hosts"], found["metadata"]["x"], "hand" in found["metadata"]) == (["node1"], "1", False)
    assert cloud.traits("node1") == {"COMPUTE_NODE", "CUSTOM_MH_FAST"}


def test_what_was_made_by_hand_is_never_touched(there: Stage, cloud: OpenStack) -> None:
    cloud.create("mine", "node1", "node3", x="by hand")
    cloud.create("theirs", "node2", **{OWNER_KEY: "another"})
    before = cloud.aggregates()
    there.aggregate("mine", "node2.example.org", x="1")
    there.aggregate("theirs", "node1.example.org")
    made = there.plan()
    assert made.steps == []
    assert lines(made.conflicts) == ["create mine", "create theirs"]
    assert there.push().done == 0
    assert cloud.aggregates() == before


def test_a_host_that_moves_is_never_in_neither(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("old", "node1.example.org")
    there.aggregate("new")
    there.push()
    there.aggregates.add_host("new", "node1.example.org")
    there.aggregates.remove_host("old", "node1.example.org")
    seen: list[list[str]] = []

    def look(method: str, path: str) -> None:
        if method == "POST":
            seen.append(sorted(name for name, each in cloud.aggregates().items() if each["hosts"]))

    cloud.nova.before = look
    assert there.push().drift == []
    cloud.nova.before = None
    assert seen == [["old"], ["new", "old"]]
    assert cloud.aggregates()["old"]["hosts"] == []
    assert cloud.mirrored("node1") == {cloud.aggregates()["new"]["uuid"]}


def test_a_host_moves_between_zones(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("one", "node1.example.org", availability_zone="az1")
    there.aggregate("two", availability_zone="az2")
    there.push()
    there.aggregates.remove_host("one", "node1.example.org")
    there.aggregates.add_host("two", "node1.example.org")
    made = there.plan()
    assert lines(made.steps) == ["remove-host one node1", "add-host two node1"]
    assert there.sinks.apply(SINK, made.id).drift == []


def test_a_new_name_keeps_the_aggregate(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("before", "node1.example.org")
    there.push()
    was = cloud.aggregates()["before"]
    there.aggregates.rename("before", "after")
    assert lines(there.plan().steps) == ["rename before 'after'"]
    there.push()
    found = cloud.aggregates()
    assert (list(found), found["after"]["uuid"]) == (["after"], was["uuid"])


def test_what_is_deleted_here_is_deleted_there(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("a", "node1.example.org", availability_zone="az1")
    there.push()
    there.aggregates.remove_host("a", "node1.example.org")
    there.aggregates.delete("a")
    assert there.push().drift == []
    assert cloud.aggregates() == {}
    assert cloud.mirrored("node1") == set()


def test_a_zone_conflict_that_comes_between_is_told_and_not_retried(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("a", "node1.example.org", "node2.example.org", availability_zone="az1")
    made = there.plan()
    adding = []

    def interfere(method: str, path: str) -> None:
        if path.endswith("/action") and method == "POST":
            adding.append(path)
            if len(adding) == 1:
                cloud.create("hand", "node1", availability_zone="az2")

    cloud.nova.before = interfere
    result = there.sinks.apply(SINK, made.id)
    cloud.nova.before = None
    assert result.done == 2
    assert lines(result.failed) == ["add-host a node1"]
    assert "already in availability zone(s)" in result.failed[0].why
    assert lines(result.drift) == ["add-host a node1"]
    assert "in zone 'az2' through 'hand'" in result.drift[0].why
    assert len(adding) == 3, "the metadata, and each host once"
    assert cloud.aggregates()["a"]["hosts"] == ["node2"]
    (told,) = there.sinks.list_sinks()
    assert told.last_error is not None
    assert told.last_error.startswith("1 of 3 steps were not done; add-host 'a'")


def test_a_host_that_the_new_zone_refuses_goes_back_to_the_old_one(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("one", "node1.example.org", availability_zone="az1")
    there.aggregate("two", availability_zone="az2")
    there.push()
    there.aggregates.remove_host("one", "node1.example.org")
    there.aggregates.add_host("two", "node1.example.org")
    made = there.plan()
    number = cloud.aggregates()["two"]["id"]
    refusal = b'{"conflictingRequest": {"code": 409, "message": "instances would have to move"}}'

    def refuse(method: str, path: str) -> Answer | None:
        return (409, refusal) if (method, path) == ("POST", f"/v2.1/os-aggregates/{number}/action") else None

    cloud.nova.before = refuse
    result = there.sinks.apply(SINK, made.id)
    cloud.nova.before = None
    assert [step.why for step in result.failed] == ["instances would have to move"]
    assert cloud.aggregates()["one"]["hosts"] == ["node1"]


def test_a_host_is_not_taken_out_when_it_could_not_join(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("old", "node1.example.org", filter_tenant_id="p1")
    there.push()
    there.aggregates.remove_host("old", "node1.example.org")
    there.aggregates.set_metadata("old", {"filter_tenant_id": None})
    there.aggregate("new", "node1.example.org")
    made = there.plan()

    def refuse(method: str, path: str) -> Answer | None:
        """The second is the adding; the first was the metadata."""
        actions = [each for each in cloud.nova.writes() if each.endswith("/action")]
        return (400, b'{"badRequest": {"message": "no"}}') if len(actions) == 2 else None

    cloud.nova.seen.clear()
    cloud.nova.before = refuse
    result = there.sinks.apply(SINK, made.id)
    cloud.nova.before = None
    assert [(step.action, step.why) for step in result.failed] == [
        ("add-host", "no"),
        ("remove-host", "not tried: node1 could not join 'new'"),
        ("unset-metadata", "not tried: node1 is still in it"),
    ]
    found = cloud.aggregates()["old"]
    assert (found["hosts"], found["metadata"]["filter_tenant_id"]) == (["node1"], "p1")


def test_hosts_that_nova_does_not_have_are_told(there: Stage, cloud: OpenStack) -> None:
    there.host(9)
    there.aggregate("a", "node1.example.org", "node9.example.org")
    made = there.plan()
    assert lines(made.conflicts) == ["name node9.example.org"]
    assert made.conflicts[0].why == "there is no compute host or hypervisor 'node9.example.org' there"
    assert there.sinks.apply(SINK, made.id).failed == []
    assert cloud.aggregates()["a"]["hosts"] == ["node1"]


def test_a_host_that_goes_between_is_told_in_novas_words(there: Stage, cloud: OpenStack) -> None:
    """No API takes a compute's record away that has a hypervisor: Nova's answer is played back."""
    there.aggregate("a", "node1.example.org", "node2.example.org")
    made = there.plan()
    message = b'{"itemNotFound": {"code": 404, "message": "Compute host node1 could not be found."}}'

    def lose(method: str, path: str) -> Answer | None:
        actions = [each for each in cloud.nova.writes() if each.endswith("/action")]
        return (404, message) if len(actions) == 2 and method == "POST" else None

    cloud.nova.seen.clear()
    cloud.nova.before = lose
    result = there.sinks.apply(SINK, made.id)
    assert [(step.detail, step.why) for step in result.failed] == [
        ("node1", "Compute host node1 could not be found.")
    ]
    assert cloud.aggregates()["a"]["hosts"] == ["node2"]


def test_what_others_did_meanwhile_counts_as_done(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("a", "node1.example.org")
    there.aggregate("gone", "node3.example.org")
    there.push()
    there.aggregates.add_host("a", "node2.example.org")
    there.aggregates.remove_host("a", "node1.example.org")
    there.aggregates.remove_host("gone", "node3.example.org")
    there.aggregates.delete("gone")
    made = there.plan()
    number, doomed = (cloud.aggregates()[name]["id"] for name in ("a", "gone"))

    def hurry(method: str, path: str) -> None:
        if method == "POST":
            cloud.nova.before = None
            cloud.act(number, "add_host", {"host": "node2"})
            cloud.act(number, "remove_host", {"host": "node1"})
            cloud.act(doomed, "remove_host", {"host": "node3"})
            cloud.ask("nova", "DELETE", f"/os-aggregates/{doomed}")

    cloud.nova.before = hurry
    result = there.sinks.apply(SINK, made.id)
    assert (result.done, result.failed, result.drift) == (len(made.steps), [], [])


def test_traits_that_others_write_between_reading_and_writing_survive(
    there: Stage, cloud: OpenStack
) -> None:
    there.host(1, "CUSTOM_MH_FAST", sequence=2)
    made = there.plan()

    def interfere(method: str, path: str) -> None:
        if (method, path) == ("PUT", f"/resource_providers/{cloud.provider('node1')}/traits"):
            cloud.placement.before = None
            cloud.set_traits("node1", "COMPUTE_NODE", "CUSTOM_HAND")

    cloud.placement.before = interfere
    result = there.sinks.apply(SINK, made.id)
    assert (result.failed, result.drift) == ([], [])
    assert cloud.traits("node1") == {"COMPUTE_NODE", "CUSTOM_HAND", "CUSTOM_MH_FAST"}


def test_somebody_who_always_writes_first_is_given_up_on(there: Stage, cloud: OpenStack) -> None:
    there.host(1, "CUSTOM_MH_FAST", sequence=2)
    made = there.plan()
    path = f"/resource_providers/{cloud.provider('node1')}/traits"
    rounds = iter(range(1000))

    def interfere(method: str, asked: str) -> None:
        if (method, asked) == ("PUT", path):
            cloud.set_traits("node1", *(["COMPUTE_NODE"] if next(rounds) % 2 else ["OWNER_NOVA"]))

    cloud.placement.before = interfere
    result = there.sinks.apply(SINK, made.id)
    cloud.placement.before = None
    assert [step.action for step in result.failed] == ["set-traits"]
    assert "generation" in result.failed[0].why
    assert cloud.placement.writes().count(f"PUT {path}") == 5


def test_a_plan_is_refused_when_either_side_has_changed(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("a", "node1.example.org")
    made = there.plan()
    there.aggregates.add_host("a", "node2.example.org")
    with pytest.raises(Conflict, match="it would now add-host 'a' node2"):
        there.sinks.apply(SINK, made.id)
    made = there.plan()
    cloud.create("a")
    with pytest.raises(Conflict, match="it would no longer create 'a'"):
        there.sinks.apply(SINK, made.id)
    assert cloud.aggregates()["a"]["hosts"] == []


def test_reports_that_change_nothing_there_do_not_outdate_a_plan(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("a", "node1.example.org")
    made = there.plan()
    there.host(2, "HW_CPU_X86_AVX2", sequence=2)
    assert there.sinks.apply(SINK, made.id).drift == []


def test_a_plan_is_carried_out_once(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("a")
    made = there.plan()
    there.sinks.apply(SINK, made.id)
    with pytest.raises(NotFound, match=f"there is no plan '{made.id}'"):
        there.sinks.apply(SINK, made.id)
    with pytest.raises(NotFound, match="there is no sink 'nowhere': configured are 'there'"):
        there.sinks.plan("nowhere")


def test_two_do_not_apply_at_once(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("a")
    first, second = there.plan(), there.plan()
    refused: list[Conflict] = []

    def meanwhile(method: str, path: str) -> None:
        if method == "POST" and not refused:
            with pytest.raises(Conflict, match="being applied") as caught:
                there.sinks.apply(SINK, second.id)
            refused.append(caught.value)

    cloud.nova.before = meanwhile
    assert there.sinks.apply(SINK, first.id).failed == []
    assert len(refused) == 1


def test_who_has_lost_its_turn_does_no_more(
    there: Stage, cloud: OpenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped for so long that another one was let in."""
    there.aggregate("a", "node1.example.org")
    made = there.plan()
    monkeypatch.setattr(service, "RENEW_SECONDS", 0)

    def steal(method: str, path: str) -> None:
        if method == "PUT":
            with there.store.write() as connection:
                connection.execute(update(LEASES).values(holder="another"))

    cloud.nova.before = steal
    result = there.sinks.apply(SINK, made.id)
    assert (result.done, lines(result.failed)) == (1, ["add-host a node1"])
    assert result.failed[0].why == "a plan is being applied to 'there' just now"


def test_a_server_that_goes_away_half_way(there: Stage, cloud: OpenStack) -> None:
    there.host(3, "CUSTOM_MH_FAST", sequence=2)
    there.aggregate("a", "node1.example.org")
    there.aggregate("b", "node2.example.org")
    made = there.plan()

    def leave(method: str, path: str) -> Answer | None:
        return GONE if len(cloud.nova.writes()) > 4 else None

    cloud.nova.seen.clear()
    cloud.nova.before = leave
    result = there.sinks.apply(SINK, made.id)
    assert result.done == 2, "the trait and the first aggregate"
    assert lines(result.failed) == lines(made.steps[2:])
    assert "503" in result.failed[0].why
    assert result.failed[1].why.startswith("not tried: Nova of 'there' answers 503")
    assert [step.action for step in result.drift] == ["verify"]
    with pytest.raises(Unavailable, match="the server is away"):
        there.plan()
    cloud.nova.before = None
    assert there.push().drift == []
    assert sorted(cloud.aggregates()) == ["a", "b"]
    assert {name: each["hosts"] for name, each in cloud.aggregates().items()} == {
        "a": ["node1"],
        "b": ["node2"],
    }


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_aggregate_is_ours_from_the_first_moment(there: Stage, cloud: OpenStack, after: int) -> None:
    """Whenever the making of one is cut off, the next plan finishes it."""
    there.aggregate("a", "node1.example.org", x="1")
    made = there.plan()
    cloud.nova.seen.clear()
    cloud.nova.before = lambda *_: GONE if len(cloud.nova.writes()) > after else None
    assert there.sinks.apply(SINK, made.id).failed != []
    cloud.nova.before = None
    assert there.push().drift == []
    found = cloud.aggregates()
    assert list(found) == ["a"]
    assert (found["a"]["hosts"], found["a"]["metadata"]["x"]) == (["node1"], "1")


@pytest.mark.slow
def test_placement_that_has_died_leaves_a_mirror_that_is_mended(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("a", "node1.example.org")
    made = there.plan()

    def die(method: str, path: str) -> None:
        if method == "POST" and "placement" in cloud.running:
            cloud.stop("placement")

    cloud.nova.before = die
    result = there.sinks.apply(SINK, made.id)
    assert (result.done, result.failed) == (2, []), "Nova says nothing of it"
    assert [step.action for step in result.drift] == ["verify"]
    cloud.nova.before = None
    cloud.start("placement")
    assert cloud.mirrored("node1") == set()
    assert there.drift() == ["mirror-host a node1"]
    assert there.push().drift == []
    assert cloud.mirrored("node1") == {cloud.aggregates()["a"]["uuid"]}


def test_a_mirror_that_differs_is_mended(there: Stage, cloud: OpenStack) -> None:
    there.aggregate("a", "node1.example.org")
    there.push()
    uuid = cloud.aggregates()["a"]["uuid"]
    cloud.set_mirrored("node1")
    cloud.set_mirrored("node2", uuid)
    assert there.drift() == ["mirror-host a node1", "unmirror-host a node2"]
    assert there.push().drift == []
    assert (cloud.mirrored("node1"), cloud.mirrored("node2")) == ({uuid}, set())


def test_a_host_that_placement_does_not_have_is_told(there: Stage, cloud: OpenStack) -> None:
    name = there.host(4, "CUSTOM_MH_FAST")
    assert UNPROVIDED == "node4"
    there.aggregate("a", name)
    result = there.push()
    assert result.failed == []
    assert lines(result.drift) == [
        f"set-traits {name} {UNPROVIDED}, +CUSTOM_MH_FAST",
        f"mirror-host a {UNPROVIDED}",
    ]
    assert all("nova-compute has to make it" in step.why for step in result.drift)
    told = cloud.ask("placement", "GET", "/resource_providers")["resource_providers"]
    assert name not in {each["name"] for each in told}, "a provider of that name is nova-compute's to make"


def test_a_host_of_several_hypervisors_is_a_member_without_traits(there: Stage, cloud: OpenStack) -> None:
    name = there.host(7, "CUSTOM_MH_FAST", hostname=BARE_METAL)
    there.aggregate("a", name)
    made = there.plan()
    assert lines(made.steps)[-1] == f"add-host a {BARE_METAL}"
    assert "2 hypervisors" in made.conflicts[0].why


def test_an_aggregates_name_can_be_a_trait_of_its_members(cloud: OpenStack, tmp_path: Path) -> None:
    with stage(
        tmp_path,
        **settings_of(cloud.nova.port, cloud.placement.port, aggregate_traits=True, prefix="CUSTOM_FLEET_"),
    ) as there:
        for number in (1, 2):
            there.host(number, "CUSTOM_MH_FAST")
        there.aggregate("cool hardware", "node1.example.org")
        there.aggregate("a-b", "node2.example.org")
        there.aggregate("a.b")
        made = there.plan()
        assert lines(made.conflicts) == ["name a-b", "name a.b"]
        there.sinks.apply(SINK, made.id)
    assert cloud.traits("node1") == {"CUSTOM_FLEET_COOL_HARDWARE"}
    assert cloud.traits("node2") == set()


def test_without_traits_placement_is_only_read(cloud: OpenStack, tmp_path: Path) -> None:
    with stage(tmp_path, **settings_of(cloud.nova.port, cloud.placement.port, traits=False)) as there:
        there.aggregate("a", there.host(1, "CUSTOM_MH_FAST"))
        assert there.push().drift == []
    assert [each for each in cloud.placement.writes() if "/aggregates" not in each] == []


def test_two_conductors_keep_to_what_is_theirs(cloud: OpenStack, tmp_path: Path) -> None:
    for owner, name in (("east", "a"), ("west", "b")):
        directory = tmp_path / owner
        with stage(directory, **settings_of(cloud.nova.port, cloud.placement.port, owner=owner)) as there:
            there.aggregate(name, there.host(1))
            assert there.push().drift == []
    assert sorted(cloud.aggregates()) == ["a", "b"]


def test_a_cloud_of_clouds_yaml(cloud: OpenStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clouds.yaml").write_text(
        "clouds:\n  home:\n    auth_type: none\n"
        f"    compute_endpoint_override: http://127.0.0.1:{cloud.nova.port}/v2.1\n"
        f"    placement_endpoint_override: http://127.0.0.1:{cloud.placement.port}\n"
    )
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    with stage(tmp_path, type="openstack", cloud="home") as there:
        there.aggregate("a", there.host(1))
        assert there.push().drift == []
    with (
        stage(tmp_path, type="openstack", cloud="nowhere") as there,
        pytest.raises(InvalidArguments, match="sink 'there': Cloud nowhere was not found"),
    ):
        there.plan()


def test_an_operator_pushes_to_a_file_and_to_a_cloud(cloud: OpenStack, tmp_path: Path) -> None:
    out, config = tmp_path / "out.json", tmp_path / "conductor.toml"
    config.write_text(
        '[authority]\n"anonymous" = "operator"\n'
        f'[sink.out]\ntype = "file"\npath = "{out}"\n'
        f'[sink.lab]\ntype = "openstack"\ncompute = "http://127.0.0.1:{cloud.nova.port}/v2.1"\n'
        f'placement = "http://127.0.0.1:{cloud.placement.port}"\n'
    )
    with (
        agent("mh-broker", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "broker")) as broker,
        agent("mh-conductor", "--broker", broker.url, "--config", str(config), "--state", str(tmp_path)),
    ):

        def run(*words: str) -> str:
            done = mhctl("--on", broker.url, *words, seconds=SECONDS)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        run("hosts", "register", "node1.example.org")
        run("aggregate", "create", "cool")
        run("aggregate", "set", "--property", "coolhardware=true", "cool")
        run("aggregate", "add-host", "cool", "node1.example.org")
        plan = json.loads(run("--json", "sink", "plan", "lab"))
        assert [step["action"] for step in plan["steps"]] == ["create", "add-host"]
        run("sink", "apply", "lab", "--plan", plan["id"], "--yes")
        run("sink", "apply", "out", "--yes")
        run("sink", "drift", "lab")
        refused = mhctl("--on", broker.url, "sink", "apply", "lab", "--plan", plan["id"], "--yes")
        assert refused.returncode != 0
        assert "there is no plan" in refused.stderr
    found = cloud.aggregates()["cool"]
    assert (found["hosts"], found["metadata"]["coolhardware"]) == (["node1"], "true")
    (told,) = json.loads(out.read_text())["aggregates"]
    assert (told["name"], told["hosts"]) == ("cool", ["node1.example.org"])
