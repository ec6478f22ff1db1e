"""Whether a wish can be, and whether it has come true: judged by what the kernel has, whoever made it."""

import threading
import time
from collections.abc import Callable

from libmh.context import Root
from libmh.errors import BackendFailed, Conflict, InvalidArguments, NotFound, Timeout
from libmh.linux.net.kernelnet import DAD_FAILED, DHCP, KERNEL, TENTATIVE, LinkState, kernel, matching, state
from libmh.linux.net.netwish import (
    AddRoute,
    RemoveRoute,
    SetAddresses,
    SetMtu,
    Turn,
    Wish,
    check_on_link,
    described,
)

STEP, LONGEST_STEP, SLOWER = 0.03, 0.5, 1.2  # what takes long is not looked at often
PROBE_SECONDS = 0.6
MTU_OF_NO_LIMIT = 65_535  # links that do not tell their own (IFLA_MAX_MTU of 0)
LEAST_MTU = 68
LEAST_MTU_IPV6 = 1280  # RFC 8200


def check(link: str, wish: Wish, now: LinkState) -> None:
    """Raises `invalid-arguments`, `conflict` or `not-found`: what is wished does not fit the link."""
    if now.loopback:
        raise InvalidArguments(
            f"iface: '{link}' is the loopback link, which is left as it is", argument="iface"
        )
    match wish:
        case SetMtu():
            _check_mtu(link, wish.mtu, now)
        case AddRoute():
            if wish.gateway is not None:
                check_on_link(wish.gateway, now.interfaces, "gateway")
            if any(wish.metric in (0, each.metric) for each in matching(now.paths, wish)):
                raise Conflict(f"there is a route to '{wish.destination}' out of '{link}'", link=link)
        case RemoveRoute():
            found = matching(now.paths, wish)
            if not found:
                raise NotFound(f"there is no route to '{wish.destination}' out of '{link}'", link=link)
            if all(each.protocol == KERNEL for each in found):
                raise InvalidArguments(
                    f"destination: the route to '{wish.destination}' belongs to an address of '{link}'",
                    argument="destination",
                )


def _check_mtu(link: str, mtu: int, now: LinkState) -> None:
    least = max(now.min_mtu, LEAST_MTU)
    most = now.max_mtu or MTU_OF_NO_LIMIT
    if not least <= mtu <= most:
        raise InvalidArguments(f"mtu: '{link}' can have {least} to {most} bytes, got {mtu}", argument="mtu")
    lost = [each.address for each in now.addresses if each.interface.version == 6 and not each.link_local]
    if (
        mtu < LEAST_MTU_IPV6 and lost
    ):  # the kernel takes its addresses away, and no larger one brings them back
        raise InvalidArguments(
            f"mtu: '{link}' has IPv6 ({lost[0]}), which needs {LEAST_MTU_IPV6} bytes, got {mtu}",
            argument="mtu",
        )


def true(wish: Wish, before: LinkState, now: LinkState) -> bool:
    """Whether the kernel has what was wished. `backend-failed` when it found that it cannot be."""
    match wish:
        case SetAddresses():
            return _has_addresses(wish, now)
        case SetMtu():
            return now.mtu == wish.mtu
        case AddRoute():
            return any(wish.metric in (0, each.metric) for each in matching(now.paths, wish))
        case RemoveRoute():
            return not [each for each in matching(now.paths, wish) if each.protocol != KERNEL]
        case Turn.DOWN:
            return not now.up
        case Turn.UP:
            return now.up
    return now.up and _has_back(before, now)


def _has_addresses(wish: SetAddresses, now: LinkState) -> bool:
    wanted = set(wish.addresses)
    for each in now.addresses:
        if each.flags & DAD_FAILED and each.interface in wanted:
            raise BackendFailed(f"another host has the address '{each.address}'")
    held = [each for each in now.addresses if not each.link_local]
    # without a carrier nobody can be asked whether an address is free
    settled = {each.interface for each in held if not now.carrier or not each.flags & TENTATIVE}
    others = [each for each in held if each.interface not in wanted]
    leased = [each for each in others if each.interface.version == 4]
    announced = [each for each in others if each.interface.version == 6]
    if not wanted <= settled or wish.dhcp is not bool(leased) or (announced and not wish.auto):
        return False
    defaults = [each.gateway for each in now.paths if each.default]
    return all(str(gateway) in defaults for gateway in wish.gateways)


def _has_back(before: LinkState, now: LinkState) -> bool:
    """After a restart: every address that was there for good, and one by DHCP where there was one."""
    held = {each.interface for each in now.addresses if not each.flags & TENTATIVE}
    lasting = {each.interface for each in before.addresses if not each.dynamic and not each.link_local}
    leased = any(each.dynamic and each.interface.version == 4 for each in before.addresses)
    return lasting <= held and (not leased or any(each.version == 4 for each in held))


def came_back(before: LinkState, now: LinkState) -> bool:
    """Whether a link is what it was, as far as that does not come from other hosts."""
    if now.up is not before.up or now.mtu != before.mtu:
        return False
    if not (now.up and now.carrier):  # managers give no addresses to a link without a carrier
        return True
    held = {each.interface for each in now.addresses}
    lasting = {each.interface for each in before.addresses if not each.dynamic and not each.link_local}
    made = {(each.network, each.gateway) for each in before.paths if each.made and each.protocol != DHCP}
    return lasting <= held and made <= {(each.network, each.gateway) for each in now.paths}


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """`timeout` when a condition does not come true."""
    end = time.monotonic() + seconds
    pause, step = threading.Event(), STEP
    while not condition():
        if time.monotonic() > end:
            raise Timeout(f"{what} within {seconds:g} s")
        pause.wait(step)
        step = min(step * SLOWER, LONGEST_STEP)


def wait_for_truth(
    root: Root, link: str, wish: Wish, before: LinkState, done: Callable[[], bool], seconds: float
) -> None:
    """Until the keeper is done and the kernel has it; raises what either says against it."""

    def came_true() -> bool:
        return done() and true(wish, before, state(root, link))

    dhcp = isinstance(wish, SetAddresses) and wish.dhcp
    missing = ": DHCP did not answer" if dhcp else ""
    wait_until(came_true, seconds, f"'{described(wish)}' did not come true{missing}")


def taken(root: Root, link: str, wish: Wish, now: LinkState) -> str | None:
    """Which address of a wish another host on the link answers for: looked up as RFC 5227 does, by the
    kernel's own neighbour discovery. IPv6 looks by itself when an address is given to a link."""
    if not isinstance(wish, SetAddresses) or not (now.up and now.carrier):
        return None
    asked = [each for each in wish.addresses if each.version == 4 and each not in now.interfaces]
    if not asked:
        return None
    with kernel(root, link) as found:
        found.forget_neighbours(asked)
        found.ask_neighbours(asked)
        try:
            wait_until(lambda: bool(found.answering(asked)), PROBE_SECONDS, "nobody answered")
        except Timeout:
            return None
        else:
            return str(found.answering(asked)[0])
        finally:
            found.forget_neighbours(asked)
