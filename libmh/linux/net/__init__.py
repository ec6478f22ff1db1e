"""Links, addresses and routes: read from the kernel, changed by whoever manages them."""
