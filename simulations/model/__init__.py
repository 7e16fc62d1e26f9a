"""The imagined fleet: engines, replicas, queues, and what a scrape shows of them."""
