"""Other autoscalers' laws, re-implemented by us from their source at the version named in each module."""
