"""Signed requests: who signed is who asks, once, and nobody changes it on the way."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amqp_serving import TOY, UUID, ask, asking, code, direct_agent, request, run
from libmh.errors import BackendFailed, Conflict, InvalidArguments, NotAuthorized, NotFound, Unavailable
from libmh.keys import PrivateKey, Trusted, generate, load, parse, read, revoke, trust
from mh_amqp import codec, signatures
from mh_amqp.authority import roles
from mh_amqp.messages import Message, decode, encode
from mh_amqp.names import host_address
from mh_amqp.signatures import SIGNATURE, Seen, Signatures, canonical, signatures_of, signed
from processes import agent, command

ID = codec.string("0123456789abcdef0123456789abcdef")
ASKED = Message(
    message_id=ID,
    to="mh.host.x",
    reply_to="mh.reply.1",
    content_type="application/json",
    properties={"operation": "strike", "type": TOY, "name": "self", "mh:deadline": 5000},
    data=b'{"what": "a bell"}',
)


@pytest.fixture
def key(tmp_path: Path) -> PrivateKey:
    generate("ops", tmp_path / "console.key")
    return load(tmp_path / "console.key")


@pytest.fixture
def checks(tmp_path: Path, key: PrivateKey) -> Signatures:
    trust(key.public, tmp_path / "keys")
    found = Signatures(Trusted(tmp_path / "keys"), Seen(tmp_path / "seen"))
    found.seen.open()
    return found


def test_who_signed_is_who_asks(checks: Signatures, key: PrivateKey) -> None:
    who, ticket = checks.check(signed(ASKED, key), "anonymous")
    assert who == "key:ops"
    assert ticket is not None
    assert checks.check(ASKED, "anonymous") == ("anonymous", None)


def test_a_signature_travels(checks: Signatures, key: PrivateKey) -> None:
    arrived = decode(encode(signed(ASKED, key)))
    assert canonical(arrived) == canonical(signed(ASKED, key)) or checks.check(arrived, "")[0] == "key:ops"


CHANGES: dict[str, Callable[[Message], Message]] = {
    "another host": lambda m: replace(m, to="mh.host.y"),
    "another id": lambda m: replace(m, message_id=codec.string("f" * 32)),
    "other arguments": lambda m: replace(m, data=b'{"what": "a gong"}'),
    "another body": lambda m: replace(m, data=None, value=codec.string("x")),
    "another member": lambda m: replace(m, properties={**m.properties, "operation": "level"}),
    "one more property": lambda m: replace(m, properties={**m.properties, "mh:where": "x"}),
    "one less": lambda m: replace(
        m, properties={k: v for k, v in m.properties.items() if k != "mh:deadline"}
    ),
    "a longer life": lambda m: replace(m, properties={**m.properties, "mh:lifetime": 10**8}),
    "a later time": lambda m: replace(
        m, properties={**m.properties, "mh:issued": int(time.time() * 1000) + 9}
    ),
    "another encoding": lambda m: replace(m, content_encoding="deflate"),
    "another signature": lambda m: replace(m, properties={**m.properties, SIGNATURE: b"x" * 64}),
    "a short signature": lambda m: replace(m, properties={**m.properties, SIGNATURE: b""}),
    "no bytes": lambda m: replace(m, properties={**m.properties, SIGNATURE: "x"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nobody_changes_it_on_the_way(checks: Signatures, key: PrivateKey, change: str) -> None:
    with pytest.raises(NotAuthorized, match="does not hold"):
        checks.check(CHANGES[change](signed(ASKED, key)), "anonymous")


def test_where_the_answer_goes_may_change(checks: Signatures, key: PrivateKey) -> None:
    """A console that has lost its connection has another reply address when it asks again."""
    assert checks.check(replace(signed(ASKED, key), reply_to="mh.reply.2", ttl=1), "")[0] == "key:ops"


def test_a_key_that_is_not_trusted_is_nobody(
    checks: Signatures, tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libmh.keys.LOOK_SECONDS", 0.0)
    other = generate("ops2", tmp_path / "other.key")
    with pytest.raises(NotAuthorized, match="is not trusted"):
        checks.check(signed(ASKED, load(tmp_path / "other.key")), "anonymous")
    trust(other, tmp_path / "keys")
    assert checks.check(signed(ASKED, load(tmp_path / "other.key")), "")[0] == "key:ops2"
    revoke("ops", tmp_path / "keys")
    with pytest.raises(NotAuthorized, match="is not trusted"):
        checks.check(signed(ASKED, key), "anonymous")


@pytest.mark.parametrize(
    ("shift", "lifetime", "why"),
    [
        (-300, 60_000, "are over"),
        (+300, 60_000, "in the future"),
        (0, 0, "needs mh:issued"),
        (0, 10**12, "needs"),
    ],
)
def test_it_holds_for_its_time(
    checks: Signatures, key: PrivateKey, monkeypatch: pytest.MonkeyPatch, shift: int, lifetime: int, why: str
) -> None:
    now = time.time()
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now + shift)
        message = signed(ASKED, key, lifetime)
    with pytest.raises(NotAuthorized, match=why):
        checks.check(message, "")


@pytest.mark.parametrize("shift", [-20, 20])
def test_clocks_may_differ_a_little(
    checks: Signatures, key: PrivateKey, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    now = time.time()
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now + shift)
        message = signed(ASKED, key, 1000)
    assert checks.check(message, "")[0] == "key:ops"


def test_a_short_id_could_be_anothers(checks: Signatures, key: PrivateKey) -> None:
    for number in (b"", codec.ulong(1), codec.string("1")):
        with pytest.raises(NotAuthorized, match="an id that no other has"):
            checks.check(signed(replace(ASKED, message_id=number), key), "")


def test_nothing_else_is_taken_where_it_is_required(checks: Signatures, key: PrivateKey) -> None:
    checks.required = True
    with pytest.raises(NotAuthorized, match="only signed requests"):
        checks.check(ASKED, "CN=console")
    assert checks.check(signed(ASKED, key), "")[0] == "key:ops"


# what was seen


def test_what_was_seen_is_refused_later_and_by_the_next_process(tmp_path: Path) -> None:
    until = int(time.time() * 1000) + 60_000
    first = Seen(tmp_path / "seen")
    first.open()
    first.remember(b"one", until)
    first.remember(b"old", int(time.time() * 1000) - 1)
    with pytest.raises(Conflict, match="was made before"):
        first.remember(b"one", until)
    with (tmp_path / "seen").open("a") as file:
        file.write("17951")  # killed in the middle of a line
    second = Seen(tmp_path / "seen")
    second.open()
    with pytest.raises(Conflict, match="was made before"):
        second.remember(b"one", until)
    second.remember(b"two", until)
    second.close()
    third = Seen(tmp_path / "seen")
    third.open()
    assert set(third.earlier) == {b"one", b"two"}


def test_what_did_not_come_to_pass_may_be_asked_again(tmp_path: Path) -> None:
    seen = Seen()
    until = int(time.time() * 1000) + 60_000
    seen.remember(b"one", until)
    seen.forget(b"one")
    seen.remember(b"one", until)


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "MAX_SEEN", 10)
    seen = Seen(tmp_path / "seen")
    seen.open()
    for number in range(10):
        seen.remember(bytes([number]), int(time.time() * 1000) + (60_000 if number else -1))
    seen.remember(b"more", int(time.time() * 1000) + 60_000)  # one has expired
    with pytest.raises(Unavailable, match="10 signed requests"):
        seen.remember(b"too many", int(time.time() * 1000) + 60_000)
    assert len((tmp_path / "seen").read_text().splitlines()) == 10


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendFailed, match="cannot keep what was seen"):
        signatures_of({}, tmp_path / "file" / "seen")


@pytest.mark.parametrize("table", [{"key": "x"}, {"keys": 1}, {"required": "yes"}])
def test_a_bad_table_is_named(tmp_path: Path, table: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments, match=r"\[signing\]"):
        signatures_of({"signing": table}, tmp_path / "seen")


# on the wire


def test_a_replay_is_answered_from_the_record_then_refused(
    tmp_path: Path, checks: Signatures, key: PrivateKey
) -> None:
    async def test() -> None:
        authority = roles({"authority": {"key:*": "operator"}})
        async with (
            direct_agent(tmp_path, authority=authority) as here,
            asking(here.listener.port) as console,
        ):
            here.served.intake.signatures = checks
            asked = request("strike", body={"what": "a bell"})
            assert code(await ask(console, asked)) == 403
            message = signed(replace(asked, message_id=ID, to=host_address(UUID)), key)
            for _ in range(2):
                assert code(await ask(console, message)) == 200
            assert here.toy.calls["strike"] == 1
            here.served.intake.record._kept.clear()
            assert code(await ask(console, message)) == 409
            assert here.toy.calls["strike"] == 1
            assert code(await ask(console, replace(message, message_id=codec.string("e" * 32)))) == 403

    run(test())


def test_consoles_sign_with_their_key(tmp_path: Path) -> None:
    def mhctl(*words: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
        env = os.environ | ({"MATAHARI_CONSOLE": str(config)} if config else {})
        return subprocess.run(
            [command("mhctl"), *words], env=env, capture_output=True, text=True, timeout=30
        )

    made = mhctl("key", "generate", "ops", "--file", f"{tmp_path}/ops.key")
    assert made.returncode == 0, made.stderr
    assert mhctl("key", "show", f"{tmp_path}/ops.key.pub").stdout == made.stdout
    assert mhctl("key", "generate", "ops", "--file", f"{tmp_path}/ops.key").returncode == 1
    assert mhctl("key", "trust", made.stdout.strip(), "--keys", f"{tmp_path}/keys").returncode == 0
    (tmp_path / "console.toml").write_text(f'[signing]\nkey = "{tmp_path}/ops.key"\n')
    (tmp_path / "agent.toml").write_text(
        f'[signing]\nkeys = "{tmp_path}/keys"\nrequired = true\n[authority]\n"key:ops" = "operator"\n'
    )
    options = ("--listen", "127.0.0.1:0", "--state", f"{tmp_path}/a", "--config", f"{tmp_path}/agent.toml")
    with agent("mh-amqp", *options) as host:
        asked = ("--on", host.url, "--json", "get", "Host.hostname")
        refused = mhctl(*asked)
        assert (refused.returncode != 0, "only signed requests" in refused.stderr) == (True, True)
        told = mhctl(*asked, config=tmp_path / "console.toml")
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)
        written = mhctl(
            "--on", host.url, "set", "Host.update_interval", "8", config=tmp_path / "console.toml"
        )
        assert written.returncode == 0, written.stderr
        assert mhctl("key", "revoke", "ops", "--keys", f"{tmp_path}/keys").returncode == 0
    assert mhctl("key", "revoke", "ops", "--keys", f"{tmp_path}/keys").returncode == 1


# files


def test_keys_in_files(tmp_path: Path) -> None:
    public = generate("me", tmp_path / "k")
    assert read(tmp_path / "k.pub") == public == parse(public.line, "here")
    assert load(tmp_path / "k").public == public
    (tmp_path / "k").chmod(0o644)
    with pytest.raises(InvalidArguments, match="can be read by others"):
        load(tmp_path / "k")
    with pytest.raises(NotFound, match="mhctl key generate"):
        load(tmp_path / "none")
    (tmp_path / "bad").write_text("no key")
    (tmp_path / "bad").chmod(0o600)
    with pytest.raises(InvalidArguments, match="is no private key"):
        load(tmp_path / "bad")
    for line in ("", "mh-ed25519 x me", f"ssh-ed25519 {public.line.split()[1]} me", f"{public.line}/../x"):
        with pytest.raises(InvalidArguments):
            parse(line, "here")


def test_another_key_does_not_take_a_name(tmp_path: Path) -> None:
    trust(generate("me", tmp_path / "one"), tmp_path / "keys")
    with pytest.raises(Conflict, match="is another key"):
        trust(generate("me", tmp_path / "two"), tmp_path / "keys")
    (tmp_path / "keys" / "other.pub").write_text(read(tmp_path / "one.pub").line)
    (tmp_path / "keys" / "worse.pub").write_text("what")
    trusted = Trusted(tmp_path / "keys")
    assert trusted.find(read(tmp_path / "one.pub").id) is not None
    assert sorted(trusted.broken) == ["other.pub", "worse.pub"]
