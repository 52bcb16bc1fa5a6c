"""Rollouts: plans that devices evaluate, reports that devices send, and the guardrails that halt between the two."""
