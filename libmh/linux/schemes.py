"""The one list of schemes of configuration on Linux."""

from collections.abc import Mapping

SCHEMES: Mapping[str, str] = {
    "augeas": "libmh.linux.augeas:Augeas",
    "puppet": "libmh.linux.puppet:Puppet",
    "ansible": "libmh.linux.ansible:Ansible",
}
"""Name -> class that takes a `Root` and the directory where it may keep things (None: nowhere); imported
when it is first asked for."""
