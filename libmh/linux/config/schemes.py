"""The one list of schemes of configuration on Linux."""

from collections.abc import Mapping

SCHEMES: Mapping[str, str] = {
    "augeas": "libmh.linux.config.augeas:Augeas",
    "puppet": "libmh.linux.config.puppet:Puppet",
    "ansible": "libmh.linux.config.ansible:Ansible",
}
"""Name -> class that takes a `Root` and the directory where it may keep things (None: nowhere); imported
when it is first asked for."""
