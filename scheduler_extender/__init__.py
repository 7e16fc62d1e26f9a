"""The program that answers kube-scheduler: which nodes a pod may land on, which is best, whom evicting would help.

`service.Extender` joins what a watch or a file shows (`facts`), what that makes of nodes (`board`), and what is said on
the wire (`wire`, `answers`, `web`).
"""
