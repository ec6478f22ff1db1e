"""Configuration runs: schemes foretell them, a journal makes them whole or nothing, each can be undone."""
