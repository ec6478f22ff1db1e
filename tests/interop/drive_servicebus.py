"""The AMQP client inside azure-servicebus: its management link, as it asks a service bus."""

import json
import sys
from typing import Any

from azure.servicebus._pyamqp.client import AMQPClient  # type: ignore[import-not-found]
from azure.servicebus._pyamqp.message import Message, Properties  # type: ignore[import-not-found]
from azure.servicebus._pyamqp.sasl import SASLAnonymousCredential  # type: ignore[import-not-found]


class Anonymous:
    """The client's authentication is an object with SASL credentials; it ships none without a user."""

    auth_type = "anonymous"
    sasl = SASLAnonymousCredential()


def main(port: str, requests: str) -> None:
    client = AMQPClient(f"127.0.0.1:{port}", auth=Anonymous(), use_tls=False)
    answers: list[dict[str, Any]] = []
    client.open()
    while not client.client_ready():
        pass
    for number, request in enumerate(json.loads(requests)):
        said = request["properties"]
        message = Message(
            properties=Properties(message_id=f"request-{number}", reply_to="$management"),
            application_properties={k: v for k, v in said.items() if k not in ("operation", "type")},
            value=request["body"],
        )
        status, description, answer = client.mgmt_request(
            message,
            operation=said["operation"],
            operation_type=said["type"],
            node="$management",
            timeout=10,
        )
        told = {"status": status, "description": description, "body": answer.value}
        answers.append({"id": answer.properties.correlation_id, **told})
    client.close()
    print(json.dumps(plain(answers), default=str))


def plain(value: Any) -> Any:
    """Strings, which this client has as bytes."""
    if isinstance(value, dict):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value


main(*sys.argv[1:])
