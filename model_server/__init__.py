"""What a release manager runs: signing, releases, rollouts, the cloud endpoint, telemetry and drift."""
