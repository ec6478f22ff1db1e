"""The declaration: what a host, and the fleet's conductor, offer. Each module is one noun and imports `libmh.spec` alone."""
