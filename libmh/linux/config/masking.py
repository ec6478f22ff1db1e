"""Secrets in what is shown: `<secret 1>` stands for the first one of a text, `<secret 2>` for another.

Equal secrets have equal numbers, so that a change of one is seen and its value is not. What counts as one is
told by the name before it, by its form, and for files that are all secrets by the file. In doubt it is one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

NAMES = re.compile(
    r"pass(?:word|wd|phrase|code)|secret|token|private[-_]?key|pre[-_]?shared[-_]?key|psk|community|credential"
    r"|api[-_]?key|auth[-_]?key|access[-_]?key|encryption[-_]?key|bind[-_]?pw|wep[-_]?key|authorization|pwd"
    r"|(?<!by)(?<!(?:proxy|https|uwsgi)_)(?<!scgi_)(?<!grpc_)(?<!fastcgi_)(?<!memcached_)pass(?![\w-])",
    re.IGNORECASE,
)
WORD = re.compile(r"(?<![\w.<-])([\w.\]\[-]++)(?:[\"']?[ \t]*+(?:=>|[:=])[ \t]*+|[ \t]++)(?=\S)")
SETTING = re.compile(r"(?<![\w-])([\w-]++)=(\S+)")
QUOTED = re.compile(r"(?P<quote>[\"'])(?P<inside>(?:\\.|(?!(?P=quote)).)*)(?P=quote)")
PLAIN = re.compile(
    r"(?:yes|no|true|false|on|off|none|null|any|default|without-password|\*+|!+|x)?[;,]?$",
    re.IGNORECASE,
)
URL = re.compile(
    r"(?P<scheme>(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*+://[^\s:/@]*+:)(?P<secret>[^\s/@]+)@"
)
PEM_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----")
PEM_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----")
CRYPT = re.compile(r"\$(?:1|2[abxy]?|5|6|7|y|gy|argon2\w*|apr1|sha1|md5|pbkdf2[\w-]*)\$[^\s:\"']{8,}")
ELEMENT = re.compile(r"(?P<kept><(?:[\w-]+:)?(?P<name>[\w-]+)(?:\s[^<>]*)?>)(?P<value>[^<>]+)(?=<|$)")
BLOCK = re.compile(
    r"(?P<indent>[ \t+-]*)[\"']?(?P<name>[\w.-]+)[\"']?[ \t]*:[ \t]*[|>][-+0-9]*[ \t]*(?:#.*)?$"
)
COLONS = re.compile(r"(?:^|/)(?:g?shadow|passwd|group|opasswd|rsyncd\.secrets|[^/]*htpasswd[^/]*)[-.~\w]*$")
NUMBERED = re.compile(r"/(?:chrony|ntp)[^/]*\.keys[^/]*$|/ntp/keys$")
NUMBERED_LINE = re.compile(r"^(?P<kept>\s*\d+\s+(?:\S+\s+)?)(?P<value>[^\s#]\S*)")
KEYRING = re.compile(r"\.keyring[^/]*$")
KEYRING_LINE = re.compile(r"^(?P<kept>\s*key\s*=\s*)(?P<value>\S.*)$")
PPP = re.compile(r"/(?:ppp/[^/]*secrets|ipsec\.secrets|ipsec\.d/[^/]*\.secrets)[^/]*$")
PGPASS = re.compile(r"/\.?pgpass[^/]*$")
SNMP = re.compile(r"/snmp[^/]*/[^/]*\.conf[^/]*$")
SNMP_WORDS = re.compile(
    r"^(?P<kept>\s*(?:com2sec6?\s+(?:-Cn\s+\S+\s+)?\S+\s+\S+|createUser\s+\S+)\s+)(?P<value>\S.*)$"
)
PPP_LINE = re.compile(
    r"^(?P<kept>\s*(?:\"[^\"]*\"|[^\s#]\S*)\s+(?:\"[^\"]*\"|\S+)\s+)(?P<value>\"[^\"]*\"|\S+)"
)
IPSEC = re.compile(
    r"^(?P<kept>[^#]*:\s*(?:PSK|RSA|ECDSA|XAUTH|EAP|PIN|P12)\s+)(?P<value>\S.*)$", re.IGNORECASE
)
NO_NAMES = re.compile(r"/nsswitch\.conf[^/]*$")
PAM = re.compile(r"/pam\.(?:d/|conf)")
EMPTY = ("", "*", "!", "!!", "!*", "x", "*LK*", "*NP*")
MAX_LINE = 1 << 13


@dataclass(slots=True)
class Masks:
    """The secrets of one text, or of the two sides of a diff, by number."""

    numbers: dict[str, int] = field(default_factory=dict)

    def word(self, secret: str) -> str:
        return f"<secret {self.numbers.setdefault(secret, len(self.numbers) + 1)}>"

    def lines(self, lines: list[str], path: str = "") -> list[str]:
        """Each with its secrets masked; `path` names the file that they are of, if they are of one."""
        inside = in_keys(lines)
        return [self.one(line, path, key=key) for line, key in zip(lines, inside, strict=True)]

    def one(self, line: str, path: str, *, key: bool) -> str:
        """`key`: it is one of the lines of a private key."""
        return self._ended(self.word(line.strip()), line) if key else self.line(line, path)

    def line(self, line: str, path: str = "") -> str:
        body = line.rstrip("\r\n")
        if len(body) > MAX_LINE:  # nobody reads it, and a pattern would take its time
            return self._ended(self.word(body), line)
        for rule in _rules(path):
            body = rule(self, body)
        return self._ended(body, line)

    @staticmethod
    def _ended(body: str, line: str) -> str:
        return body + line[len(line.rstrip("\r\n")) :]


Rule = Callable[[Masks, str], str]


def in_keys(lines: list[str]) -> list[bool]:
    """Which of these are between the first and the last line of a private key, or in a block of YAML whose
    name says that it is secret."""
    blocks = _in_blocks(lines)
    return [one or other for one, other in zip(_in_pem(lines), blocks, strict=True)]


def _in_blocks(lines: list[str]) -> list[bool]:
    found = []
    indent = -1  # of the line that began a block
    for line in lines:
        body = line.lstrip(" \t+-")
        inside = indent >= 0 and body.strip() != "" and len(line) - len(body) > indent
        found.append(inside)
        if not inside and body.strip():
            begun = BLOCK.match(line) if line.rstrip()[-1:] in "|>-+" or "#" in line else None
            secret = begun is not None and NAMES.search(begun["name"]) is not None
            indent = len(line) - len(body) if secret else -1
    return found


def _in_pem(lines: list[str]) -> list[bool]:
    inside = False
    found = []
    for line in lines:
        if inside and PEM_END.search(line):
            inside = False
        found.append(inside)
        if "-----" in line:
            begun = PEM_BEGIN.search(line)
            inside = begun is not None and PEM_END.search(line, begun.end()) is None
    return found


def _rules(path: str) -> list[Rule]:
    rules: list[Rule] = [_one_line_keys, _urls, _elements]
    for pattern, rule in BY_FILE:
        if path and pattern.search(path):
            rules.append(rule)
    if not (path and NO_NAMES.search(path)):
        rules.append(_pam if path and PAM.search(path) else _named)
    return [*rules, _hashes]


def _one_line_keys(masks: Masks, line: str) -> str:
    begun = PEM_BEGIN.search(line)
    ended = PEM_END.search(line)
    if begun and ended and begun.end() < ended.start():
        inside = line[begun.end() : ended.start()]
        return line[: begun.end()] + masks.word(inside) + line[ended.start() :]
    return line


def _urls(masks: Masks, line: str) -> str:
    return URL.sub(lambda found: f"{found['scheme']}{masks.word(found['secret'])}@", line)


def _elements(masks: Masks, line: str) -> str:
    return ELEMENT.sub(
        lambda found: (
            found["kept"] + masks.word(found["value"]) if NAMES.search(found["name"]) else found[0]
        ),
        line,
    )


def _named(masks: Masks, line: str) -> str:
    at = 0
    while found := WORD.search(line, at):
        at = found.end()
        if not NAMES.search(found[1]):
            continue
        quoted = QUOTED.match(line, at)
        start, end = quoted.span("inside") if quoted else (at, len(line.rstrip()))
        secret = line[start:end]
        if secret and not PLAIN.match(secret) and not secret.startswith("<secret "):
            word = masks.word(secret)
            line, end = line[:start] + word + line[end:], start + len(word)
        if not quoted:
            return line
        at = end
    return line


def _pam(masks: Masks, line: str) -> str:
    """There `password` is a kind of rule; arguments have a `=`."""
    return SETTING.sub(
        lambda found: f"{found[1]}={masks.word(found[2])}" if NAMES.search(found[1]) else found[0], line
    )


def _hashes(masks: Masks, line: str) -> str:
    return CRYPT.sub(lambda found: masks.word(found[0]), line)


def _colons(masks: Masks, line: str) -> str:
    fields = line.split(":")
    if len(fields) > 1 and fields[1] not in EMPTY and not fields[0].lstrip().startswith("#"):
        fields[1] = masks.word(fields[1])
    return ":".join(fields)


def _pgpass(masks: Masks, line: str) -> str:
    fields = re.split(r"(?<!\\):", line, maxsplit=4)
    return ":".join([*fields[:4], masks.word(fields[4])]) if len(fields) == 5 else line


def _after(*patterns: re.Pattern[str]) -> Rule:
    def rule(masks: Masks, line: str) -> str:
        for pattern in patterns:
            if found := pattern.match(line):
                return found["kept"] + masks.word(found["value"]) + line[found.end("value") :]
        return line

    return rule


BY_FILE: tuple[tuple[re.Pattern[str], Rule], ...] = (
    (COLONS, _colons),
    (PPP, _after(IPSEC, PPP_LINE)),
    (SNMP, _after(SNMP_WORDS)),
    (PGPASS, _pgpass),
    (NUMBERED, _after(NUMBERED_LINE)),
    (KEYRING, _after(KEYRING_LINE)),
)


def masked(text: str, limit: int) -> str:
    """What a program printed, or a diff that it made: the first `limit` characters of it, masked."""
    masks = Masks()
    text = text[: limit * 2].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    lines = text.splitlines(keepends=True)
    parts = []
    for line, key in zip(lines, in_keys(lines), strict=True):
        sign = line[:1] if line[:1] in "+- " and "-----" not in line[:6] else ""
        parts.append(sign + masks.one(line[len(sign) :], "", key=key))
    return "".join(parts)[:limit]
