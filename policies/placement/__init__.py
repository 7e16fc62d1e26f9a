"""Which nodes a pod may land on, and which is best.

`reading.read_demand(SeenPod, ModelTable) -> PodDemand`, `nodes.read_node(SeenNode, ProductTable) -> NodeFacts`,
`policy.judge(PodDemand, NodeFacts, PlacementSettings) -> Verdict`, `policy.scores(verdicts) -> list[int]`.
The tables are `models.shipped_models()` and `products.shipped_products()`, and may be laid over with others.
"""
