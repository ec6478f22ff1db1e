"""Secrets in diffs and outputs: never seen, and a change of one always."""

import re
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_schemes import furnished, text
from libmh.linux.config.diffs import MAX_DIFF, unified
from libmh.linux.config.masking import masked
from testbed import needs

KEY = "-----BEGIN RSA PRIVATE KEY-----\n{}\nQWERTYtoo\n-----END RSA PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/etc/x.conf", "password = QWERTY"),
        ("/etc/x.conf", "Password QWERTY with spaces"),
        ("/etc/x.conf", 'db_passwd: "QWERTY" # note'),
        ("/etc/x.conf", '{"api_key": "QWERTY", "client_secret": "QWERTY2", "name": "n"}'),
        ("/etc/x.conf", "auth-token=QWERTY"),
        ("/etc/x.conf", "  secret 'QWERTY';"),
        ("/etc/x.conf", "PrivateKey = QWERTY="),
        ("/etc/x.conf", "url=https://user:QWERTY@host/path"),
        ("/etc/x.conf", "hash: $6$salt$QWERTYUIOP"),
        ("/etc/x.conf", "bindpw QWERTY"),
        ("/etc/x.conf", "export AWS_SECRET_ACCESS_KEY=QWERTY"),
        ("/etc/x.conf", "Authorization: Bearer QWERTY"),
        ("/etc/x.conf", "key -----BEGIN PRIVATE KEY-----QWERTY-----END PRIVATE KEY-----"),
        ("/etc/shadow", "root:QWERTY:19000:0:99999:7:::"),
        ("/etc/gshadow-", "staff:QWERTY::"),
        ("/etc/nginx/site.htpasswd", "user:QWERTY"),
        ("/etc/ppp/chap-secrets", 'client  server  "QWERTY"  *'),
        ("/etc/ppp/pap-secrets", "client * QWERTY"),
        ("/etc/ipsec.secrets", '10.0.0.1 %any : PSK "QWERTY"'),
        ("/etc/wpa_supplicant/wpa_supplicant.conf", '\tpsk="QWERTY"'),
        ("/etc/wpa_supplicant/wpa_supplicant.conf", "\twep_key0=QWERTY"),
        ("/etc/NetworkManager/system-connections/a.nmconnection", "psk=QWERTY"),
        ("/etc/snmp/snmpd.conf", "rocommunity QWERTY default"),
        ("/etc/snmp/snmpd.conf", "com2sec readonly default QWERTY"),
        ("/etc/snmp/snmpd.conf", "createUser me SHA QWERTY AES QWERTY2"),
        ("/home/me/.pgpass", "host:5432:db:user:QWERTY"),
        ("/home/me/.netrc", "machine h login l password QWERTY"),
        ("/etc/pam.d/x", "auth required pam_mysql.so passwd=QWERTY"),
        ("/etc/default/x", "export DB_PASS=QWERTY"),
        ("/etc/redis.conf", "requirepass QWERTY"),
        ("/etc/x.yml", "{user: me, pass: QWERTY}"),
        ("/etc/x.yml", "password: |\n  QWERTY\n\n  more"),
        ("/etc/x.yml", "- db:\n  - 'api_token': >-\n      QWERTY"),
        ("/etc/x.xml", "<db><password encoding='no'>QWERTY</password></db>"),
        ("/etc/ceph/ceph.client.admin.keyring", "key = QWERTY=="),
        ("/etc/chrony/chrony.keys", "1 SHA1 HEX:QWERTY"),
        ("/etc/ntp.keys", "1 M QWERTY # note"),
        ("/etc/rsyncd.secrets", "user:QWERTY"),
    ],
)
def test_a_secret_is_not_shown_and_its_change_is(path: str, line: str) -> None:
    before = f"# first\n{line}\n# last\n".encode()
    diff = unified(path, before, before.replace(b"QWERTY", b"ASDFGH"))
    assert "QWERTY" not in diff
    assert "ASDFGH" not in diff
    removed = [each[1:] for each in diff.splitlines() if re.match("-[^-]", each)]
    added = [each[1:] for each in diff.splitlines() if re.match(r"\+[^+]", each)]
    assert len(removed) == len(added) == 1
    assert removed != added
    assert " # first" in diff


def test_a_private_key_is_not_shown_and_its_change_is() -> None:
    before, after = KEY.format("QWERTY1\nSAME"), KEY.format("QWERTY2\nSAME")
    diff = unified("/etc/ssl/k.pem", before.encode(), after.encode())
    assert "QWERTY" not in diff
    assert "SAME" not in diff
    assert diff.count("-----BEGIN RSA PRIVATE KEY-----") == 1
    assert "-<secret 1>\n+<secret 2>\n" in diff


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/etc/ssh/sshd_config", "PasswordAuthentication no"),
        ("/etc/ssh/sshd_config", "PermitRootLogin without-password"),
        ("/etc/nsswitch.conf", "passwd: files systemd"),
        ("/etc/pam.d/common-password", "password required pam_unix.so sha512"),
        ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash"),
        ("/etc/shadow", "bin:*:19000:0:99999:7:::"),
        ("/etc/hosts", "127.0.0.1 localhost"),
        ("/etc/nginx/nginx.conf", "proxy_pass http://127.0.0.1:8080;"),
        ("/etc/login.defs", "PASS_MAX_DAYS 99999"),
        ("/etc/x.xml", "<name>matahari</name>"),
        ("/etc/x.yml", "notes: |"),
        ("/etc/x.conf", "# no secrets here"[:9]),
    ],
)
def test_what_is_no_secret_is_shown(path: str, line: str) -> None:
    assert f"-{line}\n" in unified(path, f"{line}\n".encode(), b"\n")


def test_what_a_program_printed_is_masked() -> None:
    printed = "ok\n-password=QWERTY\n+password=OTHER\n" + KEY.format("QWERTY") + "/files/a/psk = QWERTY\n"
    shown = masked(printed, 1000)
    assert "QWERTY" not in shown
    assert "OTHER" not in shown
    assert "-password=<secret 1>\n+password=<secret 2>\n" in shown
    assert len(masked("x" * 5000, 100)) == 100


def test_secrets_are_masked_wherever_a_plan_is_shown(tmp_path: Path) -> None:
    host = furnished(tmp_path, {"/etc/shadow": "root:$6$a$QWERTYUIOP:1:::\n"})
    wanted = text({"/etc/shadow": "root:$6$a$ASDFGHJKLM:1:::\n"}, output="token: QWERTY")
    plan = host.sysconfig.plan("augeas", wanted)
    run = host.sysconfig.apply(plan.id, "key")
    host.path("/etc/shadow").write_text("root:LATER:1:::\n")
    said = repr((plan, run, host.sysconfig.drift(), host.sysconfig.history()))
    said += host.sysconfig.is_configured("key") + repr(host.sysconfig.configured("key"))
    host.sysconfig.close()
    assert "QWERTY" not in said
    assert "ASDFGH" not in said
    assert "<secret 1>" in said


LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d\n", "\n", "a b\n", "é\n"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(before=LINES, after=LINES, ended=st.booleans())
def test_a_diff_is_one_that_patch_understands(before: list[str], after: list[str], ended: bool) -> None:
    patch = needs.command("patch", "patch")
    old, new = "".join(before).encode(), "".join(after).encode()
    new = new if ended else new.rstrip(b"\n")
    diff = unified("/f", old, new)
    assert bool(diff) is (old != new)
    if diff and old and new:
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "f"
            file.write_bytes(old)
            subprocess.run([patch, "-s", str(file)], input=diff.encode(), check=True, timeout=20)
            assert file.read_bytes() == new


@pytest.mark.parametrize("count", [2_000, 200_000])
def test_a_diff_of_much_is_cut_and_quick(count: int) -> None:
    old = "".join(f"line {n}\n" for n in range(count)).encode()
    new = "".join(f"other {n}\n" for n in range(count)).encode()
    assert len(unified("/f", old, new).encode()) <= MAX_DIFF
    assert unified("/f", old, old + b"more\n").endswith("+more\n")


@given(st.text(max_size=300), st.sampled_from(["", "/etc/shadow", "/etc/ppp/chap-secrets", "/etc/pam.d/x"]))
def test_any_text_is_masked(some: str, path: str) -> None:
    assert isinstance(masked(some, 1000), str)
    assert isinstance(unified(path or "/f", some.encode("utf-8", "replace"), b"x"), str)


@pytest.mark.parametrize(
    "line",
    [
        *("password" * 7000, "a." * 30_000 + "secret", "secret=" * 9000, 'secret="' * 7000),
        *('password "' + "\\" * 60_000, "x:/" * 20_000, "-----BEGIN PRIVATE KEY" * 2900),
        *(": PSK " * 10_000, "a://" * 16_000, "$6$" * 20_000, "a b " * 16_000),
    ],
    ids=lambda line: line[:12],
)
def test_a_hostile_line_takes_no_time(line: str) -> None:
    began = time.process_time()
    for path in ("/etc/x", "/etc/shadow", "/etc/ipsec.secrets", "/etc/snmp/snmpd.conf", "/etc/pam.d/x"):
        unified(path, line.encode(), b"")
    assert time.process_time() - began < 2
