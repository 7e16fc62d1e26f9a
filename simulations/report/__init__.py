"""The report of replays: one page that opens offline."""
