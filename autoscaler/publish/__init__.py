"""The decision as a number that others follow: for HPAs, for KEDA, for whoever reads the metrics."""
