"""What addresses are called at each broker, and where replies may go."""

import pytest

from libmh.errors import InvalidArguments
from mh_amqp import raw
from mh_amqp.dialects import (
    ARTEMIS,
    DIALECTS,
    DIRECT,
    MH_BROKER,
    RABBITMQ_3,
    RABBITMQ_4,
    ROUTER,
    UNKNOWN,
    Dialect,
    Name,
    Node,
    Target,
    chosen,
    spoken,
)
from mh_amqp.messages import Message, decode, encode

HOST, EVENT, REPLY = "mh.host.1", "mh.event.org.example.Toy.rang", "mh.reply.x-1"


@pytest.mark.parametrize(
    ("container", "product", "version", "dialect"),
    [
        ("mh-amqp:1234", "", "", DIRECT),
        ("mh-broker", "", "", MH_BROKER),
        ("rabbit@host", "RabbitMQ", "3.10.8", RABBITMQ_3),
        ("rabbit@host", "RabbitMQ", "4.0.5", RABBITMQ_4),
        ("rabbit@host", "RabbitMQ", "30.1", RABBITMQ_4),
        ("0.0.0.0", "apache-activemq-artemis", "2.40.0", ARTEMIS),
        ("router", "qpid-dispatch-router", "1.19", ROUTER),
        ("router", "skupper-router", "3.4.0", ROUTER),
        ("somebody", "", "", UNKNOWN),
        ("mh-brokers", "Rabbit", "3.", UNKNOWN),
    ],
)
def test_a_broker_is_known_by_its_open_frame(
    container: str, product: str, version: str, dialect: Dialect
) -> None:
    assert spoken(container, product, version) is dialect


def test_the_configuration_says_otherwise() -> None:
    assert chosen({}) is None
    assert [chosen({"amqp": {"dialect": name}}) for name in Name] == list(DIALECTS.values())
    for table in ({"dialect": "latin"}, {"dialect": 3}, {"dialect": ["direct"]}, {"dialects": "direct"}):
        with pytest.raises(InvalidArguments, match="one of direct"):
            chosen({"amqp": table})


@pytest.mark.parametrize(
    ("dialect", "address", "target", "node"),
    [
        (MH_BROKER, HOST, Target(None), Node(HOST)),
        (MH_BROKER, EVENT, Target(None), Node(EVENT)),
        (RABBITMQ_3, HOST, Target(f"/queue/{HOST}", durable=True), Node(f"/queue/{HOST}", durable=True)),
        (RABBITMQ_3, EVENT, Target("/exchange/amq.topic", EVENT), Node(f"/topic/{EVENT}")),
        (RABBITMQ_3, "mh.hosts", Target("/exchange/amq.topic", "mh.hosts"), Node("/topic/mh.hosts")),
        (RABBITMQ_3, REPLY, Target("/exchange/amq.topic", REPLY), Node(f"/topic/{REPLY}")),
        (RABBITMQ_4, "mh host/1", Target("/queues/mh%20host%2F1"), Node("/queues/mh%20host%2F1")),
        (RABBITMQ_4, EVENT, Target(None, to=f"/exchanges/amq.topic/{EVENT}"), Node(f"/queues/{EVENT}")),
        (RABBITMQ_4, "mh.hosts", Target("/exchanges/amq.topic/mh.hosts"), Node("/queues/mh.hosts")),
        (ARTEMIS, HOST, Target(None), Node(HOST, ("queue",))),
        (ARTEMIS, EVENT, Target(None), Node(EVENT, ("topic",))),
        (ROUTER, HOST, Target(None), Node(HOST)),
        (ROUTER, EVENT, Target("mh.event"), Node("mh.event")),
    ],
)
def test_addresses_are_called_what_the_broker_calls_them(
    dialect: Dialect, address: str, target: Target, node: Node
) -> None:
    assert dialect.target(address) == target
    assert dialect.node(address) == node


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=str)
def test_what_is_sent_all_the_time_has_its_link(dialect: Dialect) -> None:
    assert dialect.target(EVENT).link in dialect.standing
    reply = dialect.reply(REPLY)
    assert reply is not None
    assert reply.link in dialect.standing


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=str)
@pytest.mark.parametrize("address", [HOST, EVENT, "mh.report", "mh.conductor", "mh.hosts", "mh.group.web"])
def test_no_reply_goes_where_others_listen(dialect: Dialect, address: str) -> None:
    assert dialect.reply(address) is None


@pytest.mark.parametrize(
    ("dialect", "address", "target"),
    [
        (RABBITMQ_3, REPLY, Target("/exchange/amq.topic", REPLY)),
        (RABBITMQ_3, "/topic/a.b", Target("/exchange/amq.topic", "a.b")),
        (RABBITMQ_3, "/exchange/amq.topic/a.b", Target("/exchange/amq.topic", "a.b")),
        (RABBITMQ_3, "/topic/mh.report", None),
        (RABBITMQ_3, "/topic/mh%2Ereport", None),
        (RABBITMQ_3, "/topic/a/b", None),
        (RABBITMQ_3, "/queue/a", None),
        (RABBITMQ_3, "/exchange/amq.fanout/a", None),
        (RABBITMQ_3, "a.#", None),
        (RABBITMQ_3, "a" * 256, None),
        (RABBITMQ_3, "ü" * 128, None),
        (RABBITMQ_3, "", None),
        (RABBITMQ_4, REPLY, Target(None, to=f"/exchanges/amq.topic/{REPLY}")),
        (RABBITMQ_4, "/exchanges/amq.topic/a%20b", Target(None, to="/exchanges/amq.topic/a%20b")),
        (RABBITMQ_4, "/exchanges/amq.topic/mh%2Ereport", None),
        (RABBITMQ_4, "/exchanges/amq.topic/%6Dh.hosts", None),
        (RABBITMQ_4, "/queues/mh.report", None),
        (RABBITMQ_4, "/exchanges/amq.fanout/a", None),
        (RABBITMQ_4, "ü" * 128, None),
    ],
)
def test_replies_go_to_keys_alone(dialect: Dialect, address: str, target: Target | None) -> None:
    assert dialect.reply(address) == target


@pytest.mark.parametrize("dialect", [RABBITMQ_3, RABBITMQ_4], ids=str)
def test_a_key_that_is_too_long_is_told_before_the_broker_ends_the_session(dialect: Dialect) -> None:
    with pytest.raises(InvalidArguments, match="255 bytes"):
        dialect.target("mh.event." + "x" * 255)


def test_a_message_says_what_the_broker_wants_to_hear() -> None:
    sent = encode(Message(to="mh.reply.1", properties={"a": 1}, data=b"x"))
    told = raw.with_subject(sent, raw.routing(sent), "mh.reply.1")
    told = raw.with_to(told, raw.routing(told), "/exchanges/amq.topic/mh.reply.1")
    told = raw.with_user_id(told, raw.routing(told), b"otto")
    message = decode(told)
    assert (message.subject, message.to) == ("mh.reply.1", "/exchanges/amq.topic/mh.reply.1")
    assert (message.user_id, message.properties, message.data) == (b"otto", {"a": 1}, b"x")
