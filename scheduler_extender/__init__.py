"""The program that will answer kube-scheduler. What is true today: it does not serve yet."""
