"""uamqp, the C client: its management link over TLS, as a user with a password."""

import json
import sys
from typing import Any

import uamqp  # type: ignore[import-not-found]
from uamqp import authentication


def main(port: str, requests: str, authority: str, user: str, password: str) -> None:
    auth = authentication.SASLPlain("localhost", user, password, port=int(port), verify=authority)
    client = uamqp.AMQPClient(f"amqps://localhost:{port}/$management", auth=auth)
    answers: list[dict[str, Any]] = []
    for request in json.loads(requests):
        said = request["properties"]
        message = uamqp.Message(
            body=request["body"],
            application_properties={k: v for k, v in said.items() if k not in ("operation", "type")},
            body_type=uamqp.MessageBodyType.Value,
            properties=uamqp.message.MessageProperties(reply_to="$management"),
        )
        client.open()
        answer = client.mgmt_request(
            message,
            said["operation"].encode(),
            op_type=said["type"].encode(),
            node=b"$management",
            timeout=10_000,
            status_code_field=b"statusCode",
            description_fields=b"statusDescription",
            callback=lambda status, reply, description: (status, description, reply),
        )
        status, description, reply = answer
        told = {"status": status, "description": description, "body": reply.get_data()}
        answers.append({"id": reply.properties.correlation_id, **told})
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
