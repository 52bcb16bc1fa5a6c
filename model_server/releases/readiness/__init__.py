"""The readiness gate: what a release must pass before anybody is asked to sign it."""
