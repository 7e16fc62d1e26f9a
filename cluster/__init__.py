"""All contact with the world: Kubernetes and Prometheus, and the names they use."""
