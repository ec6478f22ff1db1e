"""Resource agents (OCF and its kin): what there is, and operations on them, once or recurring."""
