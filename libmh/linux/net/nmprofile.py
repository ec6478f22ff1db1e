"""Profiles of NetworkManager (nm-settings-dbus(5)): edited, and written down so that no type is lost."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from typing import Any

from libmh.errors import BackendFailed
from libmh.linux.net.netwish import IP, AddRoute, IPInterface, IPNetwork, RemoveRoute, SetAddresses

Setting = Mapping[str, Any]
"""Of a profile, by key: each value is a variant of the bus."""
Profile = Mapping[str, Setting]

FAMILIES = {4: "ipv4", 6: "ipv6"}
LEGACY = ("addresses", "routes")  # what `address-data` and `route-data` say, in the form of earlier versions
WITH_MTU = ("802-11-wireless", "infiniband", "ip-tunnel", "wireguard", "gsm", "cdma")
ETHERNET = "802-3-ethernet"
NO_IPV6 = ("disabled", "ignore")


def written(value: Any) -> Any:
    """For JSON, with the types that the bus needs back."""
    if hasattr(value, "signature") and hasattr(value, "value"):
        return {"signature": value.signature, "value": written(value.value)}
    if isinstance(value, bytes | bytearray):
        return {"hex": bytes(value).hex()}
    if isinstance(value, Mapping):
        return {"map": [[written(key), written(each)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        return [written(each) for each in value]
    return value


def read(plain: Any) -> Any:
    """What `written` gave. Raises `backend-failed` for anything else."""
    from libmh.bus import variant

    match plain:
        case {"signature": str(signature), "value": value}:
            return variant(signature, read(value))
        case {"hex": str(text)}:
            return bytes.fromhex(text)
        case {"map": list(pairs)}:
            return {read(key): read(value) for key, value in pairs}
        case list(items):
            return [read(each) for each in items]
        case None | dict():
            raise BackendFailed("the record of a NetworkManager profile is damaged")
    return plain


def plain(value: Any) -> Any:
    """Without the types: for comparing."""
    from libmh.bus import unwrap

    return unwrap(value)


def with_addresses(profile: Profile, wish: SetAddresses) -> Profile:
    """These addresses and default routes and no others; all else stays."""
    changed = dict(profile)
    for version, family in FAMILIES.items():
        own = wish.of(version)
        dynamic = wish.dhcp if version == 4 else wish.auto
        setting = _without(profile.get(family, {}), (*LEGACY, "address-data", "gateway", "method"))
        method = _method(version, own, profile.get(family, {}), dynamic=dynamic)
        gateway = wish.gateway(version)
        changed[family] = {
            **setting,
            "method": _variant("s", method),
            "address-data": _variant("aa{sv}", [_address(each) for each in own]),
            "route-data": _variant(
                "aa{sv}", [each for each in _routes(setting) if _destination(each).prefixlen]
            ),
            **({"gateway": _variant("s", str(gateway))} if gateway is not None else {}),
        }
    return changed


def _method(version: int, own: list[IPInterface], setting: Setting, *, dynamic: bool) -> str:
    if dynamic:
        return "auto"
    if own:
        return "manual"
    if version == 4:
        return "disabled"
    before = str(plain(setting.get("method", "")))
    return before if before in NO_IPV6 else "link-local"


def with_mtu(profile: Profile, mtu: int) -> Profile:
    kind = str(plain(profile.get("connection", {}).get("type", ETHERNET)))
    name = kind if kind in WITH_MTU else ETHERNET
    return {**profile, name: {**profile.get(name, {}), "mtu": _variant("u", mtu)}}


def with_route(profile: Profile, wish: AddRoute) -> Profile:
    family = FAMILIES[wish.destination.version]
    setting = _without(profile.get(family, {}), LEGACY)
    routes = [*_routes(setting), _route(wish.destination, wish.gateway, wish.metric)]
    return {**profile, family: {**setting, "route-data": _variant("aa{sv}", routes)}}


def without_route(profile: Profile, wish: RemoveRoute) -> Profile | None:
    """None where the profile has no such route."""
    family = FAMILIES[wish.destination.version]
    setting = dict(_without(profile.get(family, {}), LEGACY))
    routes = _routes(setting)
    left = [each for each in routes if not _same(each, wish)]
    gateway = plain(setting.get("gateway"))
    is_default = wish.destination.prefixlen == 0 and gateway
    if is_default and (wish.gateway is None or str(wish.gateway) == gateway):
        del setting["gateway"]
    elif len(left) == len(routes):
        return None
    return {**profile, family: {**setting, "route-data": _variant("aa{sv}", left)}}


def sendable(profile: Profile) -> Profile:
    """Without what the newer keys say as well: both would have to agree."""
    return {
        name: _without(setting, LEGACY) if name in FAMILIES.values() else setting
        for name, setting in profile.items()
    }


def new(link: str, uuid: str) -> Profile:
    """For a link that has none."""
    return {
        "connection": {
            "id": _variant("s", f"matahari {link}"),
            "uuid": _variant("s", uuid),
            "interface-name": _variant("s", link),
        },
        "ipv4": {"method": _variant("s", "disabled")},
        "ipv6": {"method": _variant("s", "link-local")},
    }


def same(one: Profile, other: Profile) -> bool:
    """Whether two say the same of what is changed here."""
    return bool(_told(one) == _told(other))


def _told(profile: Profile) -> Any:
    kept = ("method", "address-data", "route-data", "gateway", "mtu")
    return {
        name: {key: plain(value) for key, value in setting.items() if key in kept and plain(value) != []}
        for name, setting in profile.items()
        if name in (*FAMILIES.values(), *WITH_MTU, ETHERNET)
    }


def _same(route: Mapping[str, Any], wish: RemoveRoute) -> bool:
    gateway = plain(route.get("next-hop"))
    return _destination(route) == wish.destination and (wish.gateway is None or gateway == str(wish.gateway))


def _destination(route: Mapping[str, Any]) -> IPNetwork:
    try:
        return ip_network(f"{plain(route['dest'])}/{plain(route['prefix'])}", strict=False)
    except (KeyError, ValueError) as error:
        raise BackendFailed(f"NetworkManager told of a route that is none: {plain(route)}") from error


def _routes(setting: Setting) -> list[Mapping[str, Any]]:
    told = setting.get("route-data")
    return list(told.value) if told is not None else []


def _route(destination: IPNetwork, gateway: IP | None, metric: int) -> Mapping[str, Any]:
    found = {
        "dest": _variant("s", str(destination.network_address)),
        "prefix": _variant("u", destination.prefixlen),
    }
    if gateway is not None:
        found["next-hop"] = _variant("s", str(gateway))
    if metric:
        found["metric"] = _variant("u", metric)
    return found


def _address(interface: IPInterface) -> Mapping[str, Any]:
    return {
        "address": _variant("s", str(interface.ip)),
        "prefix": _variant("u", interface.network.prefixlen),
    }


def _without(setting: Setting, keys: Iterable[str]) -> Setting:
    return {key: value for key, value in setting.items() if key not in keys}


def _variant(signature: str, value: Any) -> Any:
    from libmh.bus import variant

    return variant(signature, value)
