"""Who comes in over HTTP, and what he may do."""

import asyncio
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_keystone import fake_keystone
from libmh import watched
from libmh.errors import InvalidArguments
from libmh.policy import policy
from libmh.watched import watch
from mh_conductor.rest.authority import HttpAuthority, authority
from mh_conductor.rest.entrance import WithTokens, tokens_of
from mh_conductor.rest.keystone import Remembered, keystone
from mh_conductor.rest.refusals import MOST_LINES, Refusals
from rest_serving import Rest, rest
from waiting import eventually, wait_for

MAKE = {"aggregate": {"name": "one"}}
POLICY = """
[authority]
"console*" = "makers"

[roles.makers]
rules = [ { allow = "Aggregates.create" }, { use = "guest" } ]

[roles.fast]
rules = [
    { deny = "Aggregates.*", on = { name = "prod*" } },
    { allow = "Aggregates.create" },
    { allow = "Aggregates.*", access = "open" },
]
"""


def entry(token: str, identity: str, more: str = "") -> str:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return f'[[token]]\nsha256 = "{digest}"\nidentity = "{identity}"\n{more}\n'


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "LOOK_SECONDS", 0.0)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(
        entry("root", "root", 'roles = ["operator"]')
        + entry("eyes", "eyes", 'roles = ["read-only"]')
        + entry("fast", "fast", 'roles = ["fast"]')
        + entry("old", "old", 'roles = ["operator"]\nexpires = 2001-01-01T00:00:00Z')
        + entry("bare", "console-1")
        + entry("odd", "odd", 'roles = ["nobody knows it", ""]')
    )
    return path


@pytest.fixture
def here(tmp_path: Path, tokens: Path) -> Iterator[Rest]:
    config = tmp_path / "conductor.toml"
    config.write_text(POLICY)
    rights = authority({}, str(config))
    with rest(tmp_path, WithTokens(watch(tokens, tokens_of, "the tokens")), rights) as made:
        yield made


def test_the_documents_of_versions_are_for_everybody(here: Rest) -> None:
    assert here.ask("GET", "").status == 200
    assert here.ask("GET", "/").status == 200


@pytest.mark.parametrize("token", ["", "unknown", "old", "roo", "r\u00f6\u00f6t", "x" * 10_000])
def test_whom_nobody_knows_stays_out_and_that_is_written_down(
    here: Rest, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "libmh.audit")
    headers = {"X_Auth_Token": token.encode().decode("latin-1")} if token else {}
    for path in ("/os-aggregates", "/nothing/here"):
        said = here.ask("GET", path, **headers)
        assert (said.status, said.message) == (401, "The request you have made requires authentication.")
        assert said.headers["www-authenticate"] == "Keystone"
    assert "http '127.0.0.1' was not let in" in caplog.text
    assert token not in caplog.text or not token.strip() or token == "old"


def test_a_flood_of_strangers_is_no_flood_of_lines(here: Rest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "libmh.audit")
    for _request in range(12):
        assert here.ask("GET", "/os-aggregates", X_Auth_Token="x").status == 401
    assert caplog.text.count("was not let in") == MOST_LINES


def test_what_was_counted_is_told_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "libmh.audit")

    async def flood() -> None:
        refusals = Refusals(window=0.05)
        for _request in range(MOST_LINES + 7):
            refusals.entry("10.0.0.1", "shows no token")
        await eventually(lambda: "7 more times, the last time: shows no token" in caplog.text, 60)

    asyncio.run(flood())


def test_roles_of_a_token_decide(here: Rest) -> None:
    assert here.ask("POST", "/os-aggregates", MAKE, X_Auth_Token="root").status == 200
    assert here.ask("GET", "/os-aggregates", X_Auth_Token="eyes").status == 200
    said = here.ask("POST", "/os-aggregates", MAKE, X_Auth_Token="eyes")
    assert said.status == 403
    assert said.body == {
        "forbidden": {
            "code": 403,
            "message": "Policy doesn't allow org.matahariproject.Aggregates.create to be performed.",
        }
    }
    assert here.ask("GET", "/os-aggregates", X_Auth_Token="odd").status == 403


def test_a_rule_may_look_at_names(here: Rest) -> None:
    made = here.ask("POST", "/os-aggregates", {"aggregate": {"name": "test"}}, X_Auth_Token="fast")
    assert made.status == 200
    refused = here.ask("POST", "/os-aggregates", {"aggregate": {"name": "prod"}}, X_Auth_Token="fast")
    assert refused.status == 403
    prod = here.ask("POST", "/os-aggregates", {"aggregate": {"name": "prod-1"}}, X_Auth_Token="root")
    at = f"/os-aggregates/{prod.body['aggregate']['id']}"
    assert here.ask("GET", at, X_Auth_Token="fast").status == 403
    assert here.ask("GET", at, X_Auth_Token="eyes").status == 200
    assert here.ask("GET", "/os-aggregates/1", X_Auth_Token="fast").status == 200


def test_without_roles_the_identity_decides(here: Rest) -> None:
    assert here.ask("POST", "/os-aggregates", MAKE, X_Auth_Token="bare").status == 200
    assert here.ask("DELETE", "/os-aggregates/1", X_Auth_Token="bare").status == 403


def test_who_did_it_is_in_the_history(here: Rest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "libmh.audit")
    made = here.ask("POST", "/os-aggregates", MAKE, X_Auth_Token="root")
    assert "by http 'root'" in caplog.text
    assert made.headers["x-openstack-request-id"] in caplog.text


def test_tokens_and_policy_are_read_again(here: Rest, tokens: Path, tmp_path: Path) -> None:
    assert here.ask("GET", "/os-aggregates", X_Auth_Token="new").status == 401
    tokens.write_text(entry("new", "new", 'roles = ["operator"]'))
    wait_for(lambda: here.ask("GET", "/os-aggregates", X_Auth_Token="new").status == 200, 60)
    assert here.ask("GET", "/os-aggregates", X_Auth_Token="root").status == 401
    tokens.write_text("[[token")  # what cannot be read changes nothing
    assert here.ask("GET", "/os-aggregates", X_Auth_Token="new").status == 200
    tokens.write_text(entry("new", "console-2"))
    wait_for(lambda: here.ask("POST", "/os-aggregates", MAKE, X_Auth_Token="new").status == 200, 60)
    (tmp_path / "conductor.toml").write_text('[authority]\n"console*" = "guest"\n')
    wait_for(lambda: here.ask("POST", "/os-aggregates", MAKE, X_Auth_Token="new").status == 403, 60)


def test_a_file_that_is_too_long_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    kept = entry("a", "a")
    path.write_text(kept)
    watching = watch(path, tokens_of, "the tokens")
    # cut off, the token would never expire
    path.write_text(kept + "#" * (watched.MAX_FILE - len(kept) - 1) + "\nexpires = 2001-01-01T00:00:00Z\n")
    assert [each.identity for each in watching.current()] == ["a"]
    with pytest.raises(InvalidArguments, match=f"is too long: expected at most {watched.MAX_FILE} bytes"):
        watch(path, tokens_of, "the tokens")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x", "not TOML"),
        ("token = 5", "expected at most 10000 tables"),
        ("[other]\na = 1", "and nothing else"),
        ("[[token]]\n", "token 1: sha256: expected 64 hexadecimal digits"),
        (entry("a", "a") + '[[token]]\nsha256 = "AB"\nidentity = "b"\n', "token 2: sha256"),
        (entry("a", ""), "token 1: identity: expected 1 to 255 printable characters"),
        (entry("a", "a", 'roles = "operator"'), "token 1: roles: expected a list of names"),
        (entry("a", "a", "expires = 2030-01-01"), "token 1: expires: expected a time with its zone"),
        (entry("a", "a", "more = 1"), "token 1: expected a table with expires, identity, roles, sha256"),
    ],
)
def test_a_bad_file_of_tokens_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidArguments, match=says):
        tokens_of(text)


def test_on_loopback_everybody_is_an_operator(tmp_path: Path) -> None:
    with rest(tmp_path) as here:
        assert here.ask("POST", "/os-aggregates", MAKE).status == 200
        assert here.ask("GET", "/os-aggregates", Host="localhost:1").status == 200
        assert here.ask("GET", "/os-aggregates", Host="[::1]:1").status == 200


def test_pages_of_browsers_are_not_everybody(tmp_path: Path) -> None:
    with rest(tmp_path) as here:
        for headers in ({"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
            said = here.ask("POST", "/os-aggregates", MAKE, **headers, Content_Type="text/plain")
            assert (said.status, said.message) == (
                403,
                "requests of web pages need a token, and there are none here",
            )
        strange = ("[", "[::1", "evil@localhost", "localhost@evil", "localhost/evil", "localhost?evil")
        for host in ("evil.example", "evil.example:8774", "10.0.0.1", "", *strange):
            assert here.ask("POST", "/os-aggregates", MAKE, Host=host).status == 403, host
        assert here.ask("GET", "/os-aggregates").body == {"aggregates": []}


def test_a_policy_counts_on_loopback_too(tmp_path: Path) -> None:
    for config, reads, makes in (
        ({"authority": {"loopback": "guest"}}, 200, 403),
        ({"authority": {"CN=console": "operator"}}, 403, 403),
        ({"authority": {"loopback": "operator"}}, 200, 200),
    ):
        with rest(tmp_path, rights=HttpAuthority(policy(config, {}))) as here:
            assert here.ask("GET", "/os-aggregates").status == reads
            assert here.ask("POST", "/os-aggregates", MAKE).status == makes


def test_keystone_vouches_for_tokens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "libmh.audit")
    with fake_keystone() as there:
        there.tokens |= {
            "t-admin": ("root", ("admin", "member")),
            "t-reader": ("eyes", ("reader",)),
            "t-other": ("other", ("swiftoperator",)),
        }
        entrance = keystone(str(there.file(tmp_path)), {})
        with rest(tmp_path, entrance) as here:
            assert here.ask("POST", "/os-aggregates", MAKE, X_Auth_Token="t-admin").status == 200
            assert "by http 'root@ops'" in caplog.text
            asked = there.asked
            assert here.ask("GET", "/os-aggregates", X_Auth_Token="t-admin").status == 200
            assert there.asked == asked, "a token is asked about once"
            assert here.ask("GET", "/os-aggregates", X_Auth_Token="t-reader").status == 200
            assert here.ask("DELETE", "/os-aggregates/1", X_Auth_Token="t-reader").status == 403
            assert here.ask("GET", "/os-aggregates", X_Auth_Token="t-other").status == 403
            assert here.ask("GET", "/os-aggregates", X_Auth_Token="t-none").status == 401
            assert here.ask("GET", "/os-aggregates").status == 401
            forged = {"X_Roles": "admin", "X_Identity_Status": "Confirmed", "X_User_Name": "root"}
            assert here.ask("GET", "/os-aggregates", **forged).status == 401
            assert here.ask("GET", "").status == 200


def test_where_keystone_is_away_nobody_comes_in(tmp_path: Path) -> None:
    with fake_keystone() as there:
        file = there.file(tmp_path)
    with rest(tmp_path, keystone(str(file), {"admin": "operator"})) as here:
        said = here.ask("GET", "/os-aggregates", X_Auth_Token="t")
        assert (said.status, said.message) == (503, "Keystone cannot be asked now, try again later")


def test_what_is_remembered_of_tokens_is_bounded() -> None:
    kept = Remembered(most=2)
    for key in "abc":
        kept.set(key, key.encode(), time=60)
    assert [kept.get(key) for key in "abc"] == [None, b"b", b"c"]
    kept.set("b", b"now", time=0)
    assert kept.get("b") is None


def test_bad_settings_of_keystone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArguments, match="there is no such file"):
        keystone(str(tmp_path / "none"), {})
    (tmp_path / "a").write_text("")
    with pytest.raises(InvalidArguments, match=r"\[keystone-roles\] admin: expected the name of a role"):
        keystone(str(tmp_path / "a"), {"admin": 5})
