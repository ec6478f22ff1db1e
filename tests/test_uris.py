"""What is written down of a URI."""

import pytest

from libmh.uris import shown


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        ("https://host/a/b.pp", "https://host/a/b.pp"),
        ("https://me:QWERTY@host/a", "https://<secret>@host/a"),
        ("https://QWERTY@host/a", "https://<secret>@host/a"),
        ("https://me:QW@ERTY@host/a", "https://<secret>@host/a"),
        ("https://host/a?sig=QWERTY&b=1#sha256=00", "https://host/a?<secret>#sha256=00"),
        ("puppet://master", "puppet://master"),
        ("file:///etc/a@b", "file:///etc/a@b"),
        ("nginx.service", "nginx.service"),
        ("", ""),
        ("https://host/\n?QWERTY", "https://host/\n?<secret>"),
    ],
)
def test_no_secret_of_it(uri: str, seen: str) -> None:
    assert shown(uri) == seen
