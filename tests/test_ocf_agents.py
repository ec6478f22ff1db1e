"""OCF agents: found by name below the OCF root and nowhere else, run in the environment of the OCF API."""

from pathlib import Path

import pytest

from agents import machine, put
from libmh.context import Root
from libmh.errors import BackendFailed, InvalidArguments, NotFound, NotImplementedHere, Problem
from libmh.linux.confinement import taken
from libmh.linux.resource_agents import metadata, ocf
from libmh.linux.resources import LinuxResources
from libmh.spec import Plain
from testbed import needs

PRINT = """env | grep -v "^\\(PWD\\|SHLVL\\|_\\)=" | sort
echo "args=$*"
echo "cwd=$(pwd -P)"
echo "umask=$(umask)"
"""


def test_names_are_listed(tmp_path: Path) -> None:
    put(tmp_path, "Web", "exit 0")
    put(tmp_path, "Db", "exit 0")
    put(tmp_path, "not-executable", "exit 0", mode=0o644)
    put(tmp_path, ".ocf-functions", "exit 0")
    put(tmp_path, "Other", "exit 0", provider="another")
    root = Root(tmp_path)
    assert ocf.providers(root) == ["another", "test"]
    assert ocf.agents(root, "test") == ["Db", "Web"]
    with machine(tmp_path) as here:
        assert here.resources.list_providers("OCF") == ["another", "test"]
        assert here.resources.list_providers("lsb") == []
        assert here.resources.list_agents("ocf", "test") == ["Db", "Web"]
        assert here.resources.list_standards() == ["ocf"]


def test_a_machine_without_agents_has_none(tmp_path: Path) -> None:
    assert ocf.providers(Root(tmp_path)) == []
    with machine(tmp_path) as here:
        assert here.resources.list_standards() == []
        with pytest.raises(NotImplementedHere):
            here.resources.list_agents("", "")


@pytest.mark.parametrize(
    ("provider", "agent"),
    [
        ("..", "secret"),
        ("test", "../../../../../etc/secret"),
        ("test/../test", "Web"),
        ("test", "out"),
        ("out", "secret"),
        ("test", "directory"),
        ("test", "dangling"),
        ("test", "plain"),
        ("test", "-rf"),
        ("test", ""),
        ("", "Web"),
        ("test", "Web\n"),
        ("test", "Web\0"),
        (".", "test"),
    ],
)
def test_nothing_but_an_agent_is_found(tmp_path: Path, provider: str, agent: str) -> None:
    web = put(tmp_path, "Web", "exit 0")
    secret = tmp_path / "etc/secret"
    secret.parent.mkdir()
    secret.write_text("#!/bin/sh\nexit 0\n")
    secret.chmod(0o755)
    (web.parent / "out").symlink_to(secret)
    (web.parent.parent / "out").symlink_to(secret.parent)
    (web.parent / "directory").mkdir()
    (web.parent / "dangling").symlink_to("nowhere")
    put(tmp_path, "plain", "exit 0", mode=0o644)
    put(tmp_path, "-rf", "exit 0")
    with pytest.raises(NotFound):
        ocf.find(Root(tmp_path), provider, agent)
    with machine(tmp_path) as here, pytest.raises((NotFound, InvalidArguments)):
        here.resources.invoke("r", "ocf", provider, agent, "start", 0, {})


def test_a_link_within_the_tree_is_an_agent(tmp_path: Path) -> None:
    web = put(tmp_path, "Web", "exit 0")
    (web.parent / "Alias").symlink_to("Web")
    assert ocf.find(Root(tmp_path), "test", "Alias") == web.parent / "Alias"


def test_the_environment_is_that_of_the_api_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD_LIKE", "inherited")
    put(tmp_path, "Print", PRINT)
    value = "a 'quoted' \"value\" with $HOME `id` ; blanks \\ and ünïcode"
    given: dict[str, Plain] = {
        "text": value,
        "number": 7,
        "real": 0.5,
        "yes": True,
        "no": False,
        "OCF_CHECK_LEVEL": 10,
    }
    with machine(tmp_path) as here:
        done = here.resources.run("web:0", "monitor", given, "Print", provider="test", timeout=9000)
    told = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert told.pop("MATAHARI_RUN")
    assert told.pop("HOME").startswith("/")
    assert (told.pop("cwd"), told.pop("umask")) == ("/", "0022")
    assert Path.cwd() != Path("/")  # theirs alone
    assert told == {
        "OCF_ROOT": str(tmp_path / "usr/lib/ocf"),
        "OCF_RA_VERSION_MAJOR": "1",
        "OCF_RA_VERSION_MINOR": "0",
        "OCF_RESOURCE_INSTANCE": "web:0",
        "OCF_RESOURCE_TYPE": "Print",
        "OCF_RESOURCE_PROVIDER": "test",
        "OCF_RESKEY_text": value,
        "OCF_RESKEY_number": "7",
        "OCF_RESKEY_real": "0.5",
        "OCF_RESKEY_yes": "true",
        "OCF_RESKEY_no": "false",
        "OCF_RESKEY_CRM_meta_name": "monitor",
        "OCF_RESKEY_CRM_meta_interval": "0",
        "OCF_RESKEY_CRM_meta_timeout": "9000",
        "OCF_CHECK_LEVEL": "10",
        "PATH": ocf.PATH,
        "LC_ALL": "C",
        "args": "monitor",
    }


@pytest.mark.parametrize(
    "refused",
    [
        *(
            {"a": [1]},
            {"a": {"b": 1}},
            {"a": b"x"},
            {"a": None},
            {"a": "nul\0"},
            {"a": "\ud800"},
            {"a": float("nan")},
        ),
        *({"": "x"}, {"a=b": "x"}, {"-a": "x"}, {"a b": "x"}, {f"p{n}": "x" for n in range(300)}),
    ],
)
def test_what_no_environment_can_carry_is_refused(refused: dict[str, object]) -> None:
    with pytest.raises(InvalidArguments, match="parameters"):
        ocf.texts(refused)  # type: ignore[arg-type]  # what a caller may send


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", ".hidden", "a b", "a\n", "x" * 300])
def test_a_resource_name_is_no_path_and_no_option(tmp_path: Path, name: str) -> None:
    put(tmp_path, "Web", "exit 0")
    with machine(tmp_path) as here, pytest.raises(InvalidArguments):
        here.resources.invoke(name, "ocf", "test", "Web", "start", 0, {})


@pytest.mark.parametrize("action", ["", "-h", "start;id", "start stop", "../x", "x" * 100])
def test_an_action_is_a_word(tmp_path: Path, action: str) -> None:
    put(tmp_path, "Web", "exit 0")
    with machine(tmp_path) as here, pytest.raises(InvalidArguments):
        here.resources.invoke("r", "ocf", "test", "Web", action, 0, {})


def test_other_standards_take_no_parameters_and_are_known(tmp_path: Path) -> None:
    script = tmp_path / "etc/init.d/web"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n[ $1 = status ] && exit 3\n[ $1 = start ] && exit 0\nexit 2\n")
    script.chmod(0o755)
    with machine(tmp_path) as here:
        assert here.resources.list_standards() == ["lsb", "service"]
        assert here.resources.list_agents("service", "") == ["web"]
        codes = [
            here.resources.invoke("r", "LSB", "", "web", a, 0, {})[0] for a in ("monitor", "start", "x")
        ]
        assert codes == [3, 0, 2]
        for refused in ({"a": "b"}, {}):
            with pytest.raises((InvalidArguments, NotFound)):
                here.resources.invoke("r", "lsb", "", "web" if refused else "no", "start", 0, {**refused})
        with pytest.raises(NotImplementedHere, match="not a known resource standard"):
            here.resources.invoke("r", "upstart", "", "web", "start", 0, {})


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        *(("20s", 20_000), ("20", 20_000), ("500ms", 500), ("2min", 120_000), ("1m", 60_000)),
        *(("1h", 3_600_000), ("10 sec", 10_000), ("", None), (None, None), ("soon", None), ("-1", None)),
    ],
)
def test_times_of_meta_data(text: str | None, milliseconds: int | None) -> None:
    assert metadata.duration(text) == milliseconds


def test_meta_data_as_a_record() -> None:
    xml = """<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="Web" version="1.2"><version>1.1</version>
<longdesc lang="en">Long
 text.</longdesc><shortdesc lang="en">Short  text</shortdesc>
<parameters><parameter name="mode" unique="1" required="1"><longdesc>How it is done</longdesc>
<content type="select" default="a"><option value="a"/><option value="b"/></content></parameter>
<parameter name="bare"/></parameters>
<actions><action name="monitor" timeout="20s" interval="10" depth="0" role="Promoted"/><action name="stop"/>
</actions></resource-agent>"""
    read = metadata.parse(xml, "Web")
    assert (read.name, read.version, read.summary, read.description) == (
        "Web",
        "1.2",
        "Short text",
        "Long\n text.",
    )
    mode, bare = read.parameters
    assert (mode.type, mode.required, mode.unique, mode.default) == ("select", True, True, "a")
    assert (mode.choices, mode.description) == (["a", "b"], "How it is done")
    assert (bare.type, bare.required, bare.default, bare.choices) == ("string", False, None, None)
    monitor, stop = read.actions
    assert (monitor.timeout, monitor.interval, monitor.depth, monitor.role) == (
        20_000,
        10_000,
        0,
        "Promoted",
    )
    assert (stop.timeout, stop.interval, stop.depth, stop.role) == (None, None, None, None)


def test_what_was_taken_from_a_process_is_said() -> None:
    free = {"CapBnd": "000001ffffffffff", "NoNewPrivs": "0", "Seccomp": "0"}
    assert taken(free) == ""
    assert taken({}) == ""
    assert taken({**free, "CapBnd": "0000000000000004"}) == "capabilities"
    assert taken({**free, "NoNewPrivs": "1", "Seccomp": "2"}) == "new privileges, system calls"
    assert taken({"CapBnd": "no number"}) == "capabilities"


@pytest.mark.parametrize("xml", ["", "no xml", "<other/>", "<resource-agent>"])
def test_what_is_no_meta_data_is_said(tmp_path: Path, xml: str) -> None:
    put(tmp_path, "Bad", f"printf '%s' '{xml}'")
    put(tmp_path, "Refuses", "echo no >&2; exit 3")
    with machine(tmp_path) as here:
        with pytest.raises(BackendFailed, match="Bad"):
            here.resources.metadata("ocf", "test", "Bad")
        with pytest.raises(BackendFailed, match="answered 3, no"):
            here.resources.describe("ocf", "test", "Refuses")


def test_every_installed_agent_describes_itself() -> None:
    needs.file("/usr/lib/ocf/resource.d/heartbeat/Dummy", "resource-agents")
    here = LinuxResources()
    failed: list[str] = []
    count = 0
    try:
        for provider in here.list_providers("ocf"):
            for agent in here.list_agents("ocf", provider):
                count += 1
                try:
                    read = here.metadata("ocf", provider, agent)
                except Problem as problem:
                    failed.append(str(problem))
                else:
                    assert {"start", "stop", "meta-data"} <= {action.name for action in read.actions}, agent
    finally:
        here.close()
    assert failed == []
    assert count > 100
