"""The declaration: what a host, and the fleet's conductor, offer. One noun a module, which imports
`libmh.spec`."""
