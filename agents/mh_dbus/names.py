"""The standard interfaces of D-Bus that every object has (D-Bus specification, "Standard Interfaces")."""

PROPERTIES = "org.freedesktop.DBus.Properties"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PEER = "org.freedesktop.DBus.Peer"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
ERROR = "org.freedesktop.DBus.Error."
