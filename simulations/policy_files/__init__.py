"""Autoscalers as people wrote them: an HPA, a ScaledObject or a VLLMAutoscaler of a file, made into policies.

`files.policies_of` is the way in. `docs/policy_files.md` says what is read and what is refused.
"""
