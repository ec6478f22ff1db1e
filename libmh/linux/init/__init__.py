"""Service managers: systemd over its D-Bus API, OpenRC and LSB init scripts."""
