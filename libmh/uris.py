"""URIs as they may be written down: who they log in as, and what they ask with, is often a secret."""

import re

URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/?#]*@)?([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
HIDDEN = "<secret>"


def shown(text: str) -> str:
    """A URI without its user and its query; what is no URI stays as it is."""
    found = URI.fullmatch(text)
    if found is None:
        return text
    scheme, user, place, query, fragment = found.groups(default="")
    return "".join((scheme, f"{HIDDEN}@" if user else "", place, f"?{HIDDEN}" if query else "", fragment))
