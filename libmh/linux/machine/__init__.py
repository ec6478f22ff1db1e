"""What the machine is: read from /proc, /sys, /etc and its daemons, one noun a module."""
