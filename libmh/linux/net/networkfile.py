"""Network files of systemd-networkd (systemd.network(5)): read into sections, edited, written."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from libmh.linux.net.netwish import IP, AddRoute, IPNetwork, RemoveRoute, SetAddresses

ADDRESSING = ("Address", "Gateway", "DHCP", "IPv6AcceptRA", "IPv6AcceptRouterAdvertisements")
COMMENTS = ("#", ";")


@dataclass(frozen=True, slots=True)
class Section:
    """`[name]` with its settings, in their order; a name may be there several times."""

    name: str
    settings: tuple[tuple[str, str], ...]

    def get(self, key: str) -> str | None:
        return next((value for name, value in reversed(self.settings) if name == key), None)

    def without(self, keys: Iterable[str]) -> "Section":
        return Section(self.name, tuple(each for each in self.settings if each[0] not in keys))


def parse(text: str) -> list[Section]:
    """What is no setting and no section is left out, as networkd does."""
    found: list[Section] = []
    for line in _joined(text):
        if line.startswith("[") and line.endswith("]"):
            found.append(Section(line[1:-1], ()))
        elif found and "=" in line:
            key, _, value = line.partition("=")
            last = found[-1]
            found[-1] = Section(last.name, (*last.settings, (key.strip(), value.strip())))
    return found


def _joined(text: str) -> list[str]:
    """Lines without comments; one that ends with a backslash goes on in the next."""
    found: list[str] = []
    open_line = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith(COMMENTS):
            continue
        if stripped.endswith("\\"):
            open_line += stripped[:-1] + " "
            continue
        if open_line or stripped:
            found.append(open_line + stripped)
        open_line = ""
    return [*found, open_line] if open_line else found


def written(sections: Sequence[Section], comment: str) -> str:
    parts = [f"# {comment}\n"]
    for section in (each for each in sections if each.settings):
        parts.append(f"\n[{section.name}]\n")
        parts += [f"{key}={value}\n" for key, value in section.settings]
    return "".join(parts)


def matching_only(sections: Sequence[Section], link: str) -> list[Section]:
    """The same for one link alone."""
    return [Section("Match", (("Name", link),)), *(each for each in sections if each.name != "Match")]


def with_addresses(sections: Sequence[Section], wish: SetAddresses) -> list[Section]:
    """These addresses and default routes and no others; all else stays."""
    kept = [each.without(ADDRESSING) if each.name == "Network" else each for each in sections]
    kept = [each for each in kept if each.name != "Address" and not _is_default_route(each)]
    settings = [
        ("DHCP", "ipv4" if wish.dhcp else "no"),
        ("IPv6AcceptRA", "yes" if wish.auto else "no"),
        *(("Address", str(each)) for each in wish.addresses),
        *(("Gateway", str(each)) for each in wish.gateways),
    ]
    return [*kept, Section("Network", tuple(settings))]


def with_mtu(sections: Sequence[Section], mtu: int) -> list[Section]:
    kept = [each.without(("MTUBytes",)) if each.name == "Link" else each for each in sections]
    return [*kept, Section("Link", (("MTUBytes", str(mtu)),))]


def with_route(sections: Sequence[Section], wish: AddRoute) -> list[Section]:
    settings = [("Destination", str(wish.destination))]
    if wish.gateway is not None:
        settings.append(("Gateway", str(wish.gateway)))
    if wish.metric:
        settings.append(("Metric", str(wish.metric)))
    return [*sections, Section("Route", tuple(settings))]


def without_route(sections: Sequence[Section], wish: RemoveRoute) -> list[Section] | None:
    """None where no such route is configured."""
    kept = [each for each in sections if not _is_route(each, wish)]
    changed = len(kept) < len(sections)
    if wish.destination.prefixlen == 0:
        for index, section in enumerate(kept):
            left = tuple(each for each in section.settings if not _is_gateway(section, each, wish))
            changed = changed or left != section.settings
            kept[index] = Section(section.name, left)
    return kept if changed else None


def _is_gateway(section: Section, setting: tuple[str, str], wish: RemoveRoute) -> bool:
    if section.name != "Network" or setting[0] != "Gateway":
        return False
    gateway = _ip(setting[1])
    same_family = gateway is not None and gateway.version == wish.destination.version
    return same_family and wish.gateway in (None, gateway)


def _is_route(section: Section, wish: RemoveRoute) -> bool:
    if section.name != "Route":
        return False
    gateway = _ip(section.get("Gateway") or "")
    if wish.gateway not in (None, gateway):
        return False
    return wish.destination in _destinations(section, gateway)


def _is_default_route(section: Section) -> bool:
    if section.name != "Route":
        return False
    gateway = _ip(section.get("Gateway") or "")
    return any(each.prefixlen == 0 for each in _destinations(section, gateway))


def _destinations(section: Section, gateway: IP | None) -> list[IPNetwork]:
    """A route without a destination is a default route, of its gateway's family."""
    told = section.get("Destination")
    if told:
        try:
            return [ip_network(told, strict=False)]
        except ValueError:  # what networkd would not take either
            return []
    versions = (4, 6) if gateway is None else (gateway.version,)
    return [ip_network("0.0.0.0/0" if version == 4 else "::/0") for version in versions]


def _ip(text: str) -> IP | None:
    try:
        return ip_address(text)
    except ValueError:  # empty, or `_dhcp4`
        return None
