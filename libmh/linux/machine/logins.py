"""Who is logged in: utmp(5), or logind where no utmp is kept any more."""

from libmh.api.host import LoginSession
from libmh.context import Root
from libmh.errors import NotImplementedHere, Problem, Unavailable
from libmh.linux import sysfs
from libmh.linux.daemons import LOGIND, Daemon, booted, daemon

UTMP = ("/run/utmp", "/var/run/utmp")
MAX_SESSIONS = 1000
NS = 1_000_000_000


def read(root: Root) -> list[LoginSession]:
    """`not-implemented` where neither is kept."""
    if any(sysfs.exists(root, name) for name in UTMP) and str(root.base) == "/":
        return from_utmp()
    if booted(root):
        return from_logind(daemon(root, LOGIND))
    raise NotImplementedHere("neither utmp nor logind tells who is logged in here", source=UTMP[0])


def from_utmp() -> list[LoginSession]:
    """Psutil reads it with the C library, which alone knows the record of this architecture."""
    import psutil

    return [
        LoginSession(
            user=each.name,
            terminal=each.terminal or None,
            host=None if each.host in ("", "localhost") else each.host,
            started=int(each.started * NS) if each.started > 0 else None,
        )
        for each in psutil.users()[:MAX_SESSIONS]
    ]


def from_logind(logind: Daemon) -> list[LoginSession]:
    """org.freedesktop.login1.Manager.ListSessions, and the properties of each session of a user."""
    try:
        listed = logind.value(list, "ListSessions")
    except Unavailable as problem:
        raise NotImplementedHere(
            f"no utmp, and logind does not answer: {problem}", source=UTMP[0]
        ) from problem
    answers = logind.properties([row[4] for row in listed[:MAX_SESSIONS]], "org.freedesktop.login1.Session")
    return [
        session(values)
        for values in answers
        if not isinstance(values, Problem) and str(values.get("Class")).startswith("user")
    ]


def session(values: dict[str, object]) -> LoginSession:
    """A session of logind: `TTY`, `RemoteHost`, `Timestamp` in microseconds."""
    started = values.get("Timestamp")
    return LoginSession(
        user=str(values.get("Name", "")),
        terminal=str(values.get("TTY") or "") or None,
        host=str(values.get("RemoteHost") or "") or None,
        started=started * 1000 if isinstance(started, int) and started else None,
    )
