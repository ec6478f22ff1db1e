"""Plans, runs and the history: what is shown is what is done, whole or not at all, and is remembered."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config_schemes import Machine, furnished, machine, text
from libmh.api.sysconfig import RunResult
from libmh.caller import Caller
from libmh.errors import Conflict, InvalidArguments, NotFound, Problem
from libmh.linux.config import confstore, plans
from testbed.callers import run_python_as
from waiting import wait_for

A_AND_B = {"/etc/a": "uno\n", "/etc/b": None, "/etc/new/d": "four\n"}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Machine]:
    made = furnished(tmp_path)
    yield made
    made.sysconfig.close()


def test_a_plan_shows_each_file_and_changes_none(host: Machine) -> None:
    before = host.tree()
    plan = host.sysconfig.plan("Augeas", text(A_AND_B))
    assert host.tree() == before
    assert [file.path for file in plan.files] == ["/etc/a", "/etc/b", "/etc/new/d"]
    assert plan.files[0].diff == "--- /etc/a\n+++ /etc/a\n@@ -1 +1 @@\n-one\n+uno\n"
    assert plan.files[0].before == confstore.digest(b"one\n")
    assert plan.files[1].after is None
    assert plan.files[1].diff.startswith("--- /etc/b\n+++ /dev/null\n")
    assert plan.files[2].before is None
    assert plan.exact
    assert plan.scheme == "augeas"
    assert plan.expires - plan.time == 86_400 * 10**9


def test_applying_does_what_was_shown(host: Machine) -> None:
    plan = host.sysconfig.plan("augeas", text(A_AND_B, output="hello"))
    run = host.sysconfig.apply(plan.id, "key")
    assert host.path("/etc/a").read_text() == "uno\n"
    assert not host.path("/etc/b").exists()
    assert host.path("/etc/new/d").read_text() == "four\n"
    assert sorted(path.name for path in host.path("/etc").iterdir()) == ["a", "c", "new"]
    assert run.result is RunResult.APPLIED
    assert run.files == ["/etc/a", "/etc/b", "/etc/new/d"]
    assert run.status == "OK\nhello" == host.sysconfig.is_configured("key")
    assert host.sysconfig.configured("key") == run
    assert host.sysconfig.history() == [run]
    assert [event.fields["result"] for event in host.events] == ["applied"]
    assert host.events[0].fields["key"] == "key"


def test_a_plan_is_used_up(host: Machine) -> None:
    plan = host.sysconfig.plan("augeas", text(A_AND_B))
    host.sysconfig.apply(plan.id)
    with pytest.raises(NotFound, match="applied, or has expired"):
        host.sysconfig.apply(plan.id)
    for name in ("", "../x", "0" * 16, "x" * 5000):
        with pytest.raises(NotFound):
            host.sysconfig.apply(name)


def test_a_plan_expires(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "LIFETIME", -1)
    plan = host.sysconfig.plan("augeas", text(A_AND_B))
    with pytest.raises(NotFound):
        host.sysconfig.apply(plan.id)


@pytest.mark.parametrize(("limit", "value"), [("MAX_PLANS", 3), ("MAX_SIZE", 3000)])
def test_plans_are_bounded(host: Machine, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(plans, limit, value)
    made = [host.sysconfig.plan("augeas", text({"/etc/a": "x" * 300 + str(n)})) for n in range(6)]
    with pytest.raises(NotFound):
        host.sysconfig.apply(made[0].id)
    assert host.sysconfig.apply(made[-1].id).result is RunResult.APPLIED


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda etc: (etc / "c").write_text("other\n"),
        lambda etc: (etc / "c").unlink(),
        lambda etc: (etc / "new").write_text("there now"),
    ],
)
def test_a_file_that_changed_since_is_a_conflict(host: Machine, meanwhile: Callable[[Path], object]) -> None:
    plan = host.sysconfig.plan("augeas", text({"/etc/a": "uno\n", "/etc/c": "tre\n", "/etc/new": "n"}))
    meanwhile(host.path("/etc"))
    before = host.tree()
    with pytest.raises(Conflict, match="has changed since it was planned"):
        host.sysconfig.apply(plan.id, "key")
    assert host.tree() == before
    assert host.sysconfig.is_configured("key") == "unknown"
    assert host.sysconfig.history()[0].result is RunResult.FAILED


def test_nothing_to_change_is_unchanged(host: Machine) -> None:
    plan = host.sysconfig.plan("augeas", text({"/etc/a": "one\n"}))
    assert plan.files == []
    run = host.sysconfig.apply(plan.id, "key")
    assert run.result is RunResult.UNCHANGED
    assert host.sysconfig.is_configured("key") == "OK"


def test_owner_mode_and_attributes_stay(host: Machine) -> None:
    path = host.path("/etc/a")
    path.chmod(0o4751)
    os.chown(path, 12, 34)
    path.chmod(0o4751)
    os.setxattr(path, "user.note", b"kept")
    os.setxattr(path, "security.selinux", b"system_u:object_r:etc_t:s0\0")
    host.sysconfig.run_string(text({"/etc/a": "uno\n", "/etc/new": "n"}), 0, "augeas", "key")
    status = path.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o4751, 12, 34)
    assert os.getxattr(path, "user.note") == b"kept"
    assert os.getxattr(path, "security.selinux") == b"system_u:object_r:etc_t:s0\0"
    assert host.path("/etc/new").stat().st_mode & 0o7777 == 0o644
    undo = host.sysconfig.undo(host.sysconfig.configured("key").id)
    host.sysconfig.apply(undo.id)
    assert path.stat().st_uid == 12


def test_a_link_stays_and_its_file_changes(host: Machine) -> None:
    host.path("/etc/link").symlink_to("/etc/a")  # as seen from the host's root
    host.sysconfig.run_string(text({"/etc/link": "uno\n"}), 0, "augeas", "key")
    assert host.path("/etc/link").is_symlink()
    assert host.path("/etc/a").read_text() == "uno\n"


def test_other_names_of_a_file_are_told_of(host: Machine) -> None:
    os.link(host.path("/etc/a"), host.path("/etc/twin"))
    plan = host.sysconfig.plan("augeas", text({"/etc/a": "uno\n"}))
    assert "'/etc/a' has 2 names" in plan.output


@pytest.mark.parametrize(
    "path",
    [
        *("etc/a", "/etc/../a", "/proc/sys/kernel/x", "/sys/x", "/dev/sda", "/etc/pipe", "/etc", "/"),
        *("/etc/a/", "/etc/a\0b", "/etc/out", "/etc/loop", "/var/lib/matahari/sysconfig/lock"),
        "/" + "x/" * 3000 + "y",
    ],
    ids=lambda path: path[:12].replace("\0", "NUL"),
)
def test_paths_that_are_no_configuration_are_refused(host: Machine, path: str) -> None:
    os.mkfifo(host.path("/etc/pipe"))
    host.path("/etc/out").symlink_to("../../../../../../proc/self/mem")
    host.path("/etc/loop").symlink_to("loop")
    before = host.tree()
    with pytest.raises(Problem) as caught:
        host.sysconfig.plan("augeas", text({"/etc/c": "x", path: "y"}))
    assert caught.value.word in ("invalid-arguments", "backend-failed")
    assert host.tree() == before


def test_links_do_not_lead_out_of_the_root(host: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "file"
    outside.write_text("secret")
    host.path("/etc/escape").symlink_to("../" * 20 + str(outside).lstrip("/"))
    host.sysconfig.run_string(text({"/etc/escape": "mine"}), 0, "augeas", "key")
    assert outside.read_text() == "secret"


@pytest.mark.parametrize("wanted", ["", "  \n", "x" * ((16 << 20) + 1), '{"/etc/a": "\0"}', "\0"])
def test_texts_that_are_none_are_refused(host: Machine, wanted: str) -> None:
    with pytest.raises(InvalidArguments):
        host.sysconfig.plan("augeas", wanted)
    with pytest.raises(InvalidArguments):
        host.sysconfig.run_string(wanted, 0, "augeas", "key")
    assert host.sysconfig.is_configured("key") == "unknown"


def test_a_text_or_a_uri_is_expected(host: Machine) -> None:
    for given in (("", ""), (text(A_AND_B), "file:///etc/a")):
        with pytest.raises(InvalidArguments, match="either a text or a URI"):
            host.sysconfig.plan("augeas", *given)


def test_a_key_that_is_none_is_refused_before_anything(host: Machine) -> None:
    for key in ("", ".x", "a/b", "a b", "x" * 256):
        with pytest.raises(InvalidArguments, match="key"):
            host.sysconfig.run_string("", 7, "nonsense", key)
        with pytest.raises(InvalidArguments, match="key"):
            host.sysconfig.run_uri("gopher://x", 7, "nonsense", key)
    with pytest.raises(InvalidArguments, match="key"):
        host.sysconfig.apply("0" * 16, "a b")


def test_a_key_that_has_a_status_keeps_it_unless_forced(host: Machine) -> None:
    first = host.sysconfig.run_string(text({"/etc/a": "uno\n"}), 0, "augeas", "key")
    assert first == "OK"
    assert host.sysconfig.run_string("", 0, "no such scheme", "key") == "OK"
    assert host.sysconfig.run_string(text({"/etc/a": "dos\n"}), 0, "augeas", "key") == "OK"
    assert host.path("/etc/a").read_text() == "uno\n"
    assert host.sysconfig.run_string(text({"/etc/a": "dos\n"}, output="o"), 1, "augeas", "key") == "OK\no"
    assert host.path("/etc/a").read_text() == "dos\n"
    with pytest.raises(InvalidArguments, match="flags"):
        host.sysconfig.run_string(text({}), 2, "augeas", "other")
    with pytest.raises(InvalidArguments, match="scheme"):
        host.sysconfig.run_string(text({}), 0, "registry", "other")


def test_a_text_that_does_not_save_writes_nothing(host: Machine) -> None:
    wanted = text({"/etc/a": "uno\n"}, saves=False, output="/files/etc/a = x")
    assert host.sysconfig.run_string(wanted, 0, "augeas", "key") == "OK\n/files/etc/a = x"
    assert host.path("/etc/a").read_text() == "one\n"


def test_a_uri_is_run_and_its_source_is_known(host: Machine) -> None:
    host.path("/srv").mkdir()
    host.path("/srv/change").write_text(text({"/etc/a": "uno\n"}))
    assert host.sysconfig.run_uri("file:///srv/change", 0, "augeas", "key") == "OK"
    assert host.path("/etc/a").read_text() == "uno\n"
    assert host.sysconfig.configured("key").source == "file:///srv/change"
    with pytest.raises(Problem) as caught:
        host.sysconfig.run_uri("file:///srv/none", 0, "augeas", "other")
    assert caught.value.word == "download-failed"
    assert host.sysconfig.is_configured("other") == "unknown"


def test_who_asked_is_remembered(host: Machine) -> None:
    from libmh import caller

    with caller.answering(Caller("dbus", ":1.7", 1000)):
        plan = host.sysconfig.plan("augeas", text(A_AND_B))
    run = host.sysconfig.apply(plan.id)
    assert plan.by == "dbus uid 1000"
    assert run.by == "local local"


def test_two_clients_at_once_get_one_run(host: Machine) -> None:
    plan = host.sysconfig.plan("augeas", text(A_AND_B))
    others = [host.another() for _ in range(4)]
    answers: list[str] = []

    def apply(one: Machine) -> None:
        try:
            answers.append(one.sysconfig.apply(plan.id).result)
        except Problem as problem:
            answers.append(problem.word)

    threads = [threading.Thread(target=apply, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for one in others:
        one.sysconfig.close()
    assert sorted(answers) == ["applied", "not-found", "not-found", "not-found"]
    assert len(host.sysconfig.history()) == 1


def test_two_keys_at_once_are_run_once(host: Machine) -> None:
    others = [host.another() for _ in range(3)]
    wanted = [text({"/etc/a": f"{n}\n"}) for n in range(3)]
    threads = [
        threading.Thread(target=one.sysconfig.run_string, args=(each, 0, "augeas", "key"))
        for one, each in zip(others, wanted, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for one in others:
        one.sysconfig.close()
    assert len(host.sysconfig.history("key")) == 1


def test_the_history_bears_many_at_once(host: Machine) -> None:
    others = [host.another() for _ in range(4)]

    def work(number: int, one: Machine) -> None:
        for turn in range(10):
            one.sysconfig.run_string(text({f"/etc/n{number}": f"{turn}"}), 1, "augeas", f"k{number}")
            one.sysconfig.history("", 5)

    threads = [threading.Thread(target=work, args=each) for each in enumerate(others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one in others:
        one.sysconfig.close()
    history = host.sysconfig.history("", 1000)
    assert len(history) == 40
    assert {run.result for run in history} == {RunResult.APPLIED}
    assert [run.key for run in host.sysconfig.history("k2", 3)] == ["k2"] * 3
    assert host.sysconfig.drift() == []


def test_the_history_is_bounded(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from libmh.linux.config import runs

    monkeypatch.setattr(runs, "MAX_RUNS", 5)
    monkeypatch.setattr(runs, "KEPT_WHOLE", 2)
    monkeypatch.setattr(confstore, "MAX_CONTENTS", 1500)
    for turn in range(9):
        host.sysconfig.run_string(
            text({"/etc/a": f"{turn}" * 900}, output="o" * 3000), 1, "augeas", f"k{turn}"
        )
    history = host.sysconfig.history()
    assert [run.key for run in history] == [f"k{turn}" for turn in range(8, 3, -1)]
    assert [len(run.output) for run in history] == [3000, 3000, 1024, 1024, 1024]
    with host.sysconfig._runs.store.transaction() as connection:
        kept = connection.execute("SELECT coalesce(sum(size), 0) FROM contents").fetchone()[0]
    assert kept <= 1500
    with pytest.raises(Conflict, match="kept no longer"):
        host.sysconfig.undo(history[0].id)


def test_what_is_kept_is_for_nobody_else(host: Machine) -> None:
    host.sysconfig.run_string(text(A_AND_B), 0, "augeas", "key")
    kept = host.state / "sysconfig"
    assert kept.stat().st_mode & 0o7777 == 0o700
    assert {path.stat().st_mode & 0o7777 for path in kept.iterdir() if path.is_file()} == {0o600}


def test_a_damaged_record_is_put_aside(tmp_path: Path) -> None:
    host = furnished(tmp_path)
    host.sysconfig.run_string(text(A_AND_B), 0, "augeas", "key")
    host.sysconfig.close()
    (host.state / "sysconfig/runs.sqlite").write_bytes(b"no database at all " * 1000)
    again = machine(tmp_path)
    assert again.sysconfig.history() == []
    assert again.sysconfig.run_string(text({"/etc/c": "x"}), 0, "augeas", "new") == "OK"
    again.sysconfig.close()


def test_a_program_makes_the_change(host: Machine) -> None:
    plan = host.sysconfig.plan("puppet", text({"/etc/a": "uno\n", "/etc/b": None}, told=True))
    assert not plan.exact
    assert plan.files[0].diff == "+uno\n"
    assert plan.files[0].after is None
    run = host.sysconfig.apply(plan.id, "key")
    assert run.result is RunResult.APPLIED
    assert run.files == ["/etc/a", "/etc/b"]
    assert host.sysconfig.is_configured("key") == "OK"
    host.sysconfig.apply(host.sysconfig.undo(run.id).id)
    assert host.path("/etc/a").read_text() == "one\n"
    assert host.path("/etc/b").read_text() == "two\n"


def test_a_program_that_fails_leaves_all_as_before(host: Machine) -> None:
    before = host.tree()
    wanted = text({"/etc/a": "uno\n", "/etc/b": None, "/etc/new": "n"}, told=True, code=4, output="no luck")
    assert host.sysconfig.run_string(wanted, 0, "puppet", "key") == "FAILED\n4"
    assert host.tree() == before
    run = host.sysconfig.configured("key")
    assert run.result is RunResult.FAILED
    assert run.output == "no luck"
    assert run.files == []
    with pytest.raises(Conflict):
        host.sysconfig.undo(run.id)


def test_a_program_is_not_run_when_a_file_has_changed(host: Machine) -> None:
    plan = host.sysconfig.plan("puppet", text({"/etc/a": "uno\n"}, told=True))
    host.path("/etc/a").write_text("else\n")
    with pytest.raises(Conflict):
        host.sysconfig.apply(plan.id)
    assert host.scheme.ran == []


def test_one_run_at_a_time(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from libmh.linux.config import performing

    other = host.another()
    slow = text({"/etc/a": "uno\n"}, told=True, hang="/etc/waits")
    thread = threading.Thread(target=host.sysconfig.run_string, args=(slow, 0, "puppet", "slow"))
    thread.start()
    wait_for(host.path("/etc/waits").exists)
    plan = other.sysconfig.plan("augeas", text({"/etc/b": "dos\n"}))
    order = performing.Order(lambda: plans.take(other.sysconfig._runs.store, plan.id), "somebody")
    with pytest.raises(Problem) as caught:
        other.sysconfig._runs._performer.perform(order, wait=0.1)
    assert caught.value.word == "unavailable"
    host.path("/etc/waits").unlink()
    thread.join(10)
    assert other.sysconfig.apply(plan.id).result is RunResult.APPLIED  # it was not used up
    other.sysconfig.close()


def test_a_history_fits_into_an_answer(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from libmh.linux.config import runs

    for turn in range(4):
        host.sysconfig.run_string(text({"/etc/a": f"{turn}"}, output="o" * 3000), 1, "augeas", "key")
    monkeypatch.setattr(runs, "MAX_OUTPUTS", 13_000)
    assert [len(run.output) for run in host.sysconfig.history()] == [3000, 3000, 0, 0]
    assert host.sysconfig.configured("key").output == "o" * 3000


def test_what_is_another_users_is_denied(host: Machine) -> None:
    host.sysconfig.run_string(text(A_AND_B), 0, "augeas", "key")
    snippet = """
        import sys
        from pathlib import Path
        from libmh.errors import Problem
        from libmh.linux.config import runs
        from libmh.linux.config.confstore import Store

        store = Store(Path(sys.argv[1]))
        for ask in (lambda: runs.newest(store, "", 1), lambda: store.transaction().__enter__()):
            try:
                print(ask())
            except Problem as problem:
                print(problem.word)
        """
    for directory in (host.base, *host.base.parents):
        if directory.owner() == "root" and directory.is_relative_to("/tmp/pytest-of-root"):
            directory.chmod(0o755)
    done = run_python_as(snippet, str(host.state))
    assert done.stdout.split() == ["not-authorized", "not-authorized"], done.stderr
