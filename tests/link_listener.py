"""Follow the links of this network namespace, and print what is raised of them: run by the tests inside."""

import json
import threading

from libmh.context import Context
from libmh.events import Event
from libmh.linux.network import LinuxNetwork
from waiting import wait_for


def tell(event: Event) -> None:
    if event.member == "link_changed":
        print(json.dumps({**event.fields, "time": event.time}), flush=True)


def main() -> None:
    context = Context()
    context.events.subscribe(tell)
    network = LinuxNetwork(context)
    network.watch()
    wait_for(lambda: network._links is not None and network._links.current)
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
