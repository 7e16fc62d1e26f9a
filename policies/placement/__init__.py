"""Which nodes a pod may land on, and which is best. What is true today: nothing here judges yet."""
